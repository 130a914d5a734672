// Command oracle answers with BuildKit's own packages what a cache is, so that
// tests/e2e/differential can hold ours against it. Each line of standard input is
// a question, each line of standard output its answer, both JSON:
//
//	parse   a cache config: is it accepted, and as what records
//	inline  a cache config and an image's layers: the records as BuildKit embeds them
//	lookup  embedded records and builds: what a daemon finds that imports them
//
// `make peers` builds it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/inline"
	cacheimport "github.com/moby/buildkit/cache/remotecache/v1"
	types "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/solver"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

type question struct {
	Op     string          `json:"op"`
	Text   []byte          `json:"text"`
	Layers []digest.Digest `json:"layers"`
	Builds [][]node        `json:"builds"`
}

// node is a step of a build: its digest, and of each input where it comes from.
type node struct {
	Digest digest.Digest `json:"digest"`
	Inputs []source      `json:"inputs"`
}

// source is a node of the same build by its number, which is a lesser one.
type source struct {
	Selector string `json:"selector"`
	Node     int    `json:"node"`
}

type answer struct {
	Error string `json:"error,omitempty"`
	// Why BuildKit's graph is not the records one by one: see merges.
	Merges  merges   `json:"merges"`
	Records []record `json:"records,omitempty"`
	Text    []byte   `json:"text,omitempty"`
	// For each build, for each node, the different results. Layers are numbers:
	// the first place of the blob among the layers of the question.
	Found [][][][]int `json:"found,omitempty"`
}

func main() {
	in := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) == 0 {
			return
		}
		if err != nil {
			log.Fatalf("a line without an end: %v", err)
		}
		if err := out.Encode(reply(line)); err != nil {
			log.Fatal(err)
		}
	}
}

func reply(line []byte) (a answer) {
	defer func() {
		if r := recover(); r != nil {
			a = answer{Error: fmt.Sprintf("panic: %v", r)}
		}
	}()
	var q question
	if err := json.Unmarshal(line, &q); err != nil {
		log.Fatalf("not a question: %v", err)
	}
	var err error
	switch q.Op {
	case "parse":
		err = a.parse(q)
	case "inline":
		err = a.inline(q)
	case "lookup":
		err = a.lookup(q)
	default:
		log.Fatalf("no such question: %q", q.Op)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	return a
}

// everyLayer provides all layers of a config, so that no result is left out for want of one.
func everyLayer(config types.CacheConfig) cacheimport.DescriptorProvider {
	all := cacheimport.DescriptorProvider{}
	for _, l := range config.Layers {
		all[l.Blob] = layer(l.Blob)
	}
	return all
}

func layer(blob digest.Digest) cacheimport.DescriptorProviderPair {
	return cacheimport.DescriptorProviderPair{
		Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: blob, Size: 1},
		Provider:   blobs{},
	}
}

// numbers gives each blob its first place.
func numbers(layers []digest.Digest) map[digest.Digest]int {
	places := map[digest.Digest]int{}
	for i, l := range layers {
		if _, ok := places[l]; !ok {
			places[l] = i
		}
	}
	return places
}

func placed(r *solver.Remote, places map[digest.Digest]int) []int {
	ns := []int{}
	for _, d := range r.Descriptors {
		ns = append(ns, places[d.Digest])
	}
	return ns
}

// --- parse --------------------------------------------------------------------

func (a *answer) parse(q question) error {
	var config types.CacheConfig
	_ = json.Unmarshal(q.Text, &config) // Parse says what is wrong
	blobs := make([]digest.Digest, len(config.Layers))
	for i, l := range config.Layers {
		blobs[i] = l.Blob
	}
	rec := newRecorder(numbers(blobs))
	recorded := cacheimport.Parse(q.Text, everyLayer(config), rec)
	err := cacheimport.Parse(q.Text, everyLayer(config), cacheimport.NewCacheChains())
	if (err == nil) != (recorded == nil) {
		log.Fatalf("recording changes the verdict: %v, %v", err, recorded)
	}
	a.Records, a.Merges = rec.records, rec.merges
	return err
}

// record is a call of CacheExporterTarget.Add: what BuildKit reads, before CacheChains
// merges it. Sources are numbers of earlier records.
type record struct {
	Digest  digest.Digest `json:"digest"`
	Inputs  [][]source    `json:"inputs"`
	Results [][]int       `json:"results"`
}

// merges says what CacheChains does beyond keeping records: it takes two records for one if
// they have the digest in common and, for each input, a link.
//
//   - Exact: such two have the same links in all.
//   - Inexact: they do not, so that the one record that comes of them is found in ways that
//     neither was.
//   - Lossy: one could be taken for either of several, and the order of a Go map says which
//     remains; or it would have become its own source. Then links are lost.
type merges struct {
	Exact   bool `json:"exact"`
	Inexact bool `json:"inexact"`
	Lossy   bool `json:"lossy"`
}

// recorder passes records on to CacheChains, and remembers them.
type recorder struct {
	chains  *cacheimport.CacheChains
	places  map[digest.Digest]int
	records []record
	merges  merges
	// As CacheChains knows them: who has this link, and the links of each.
	users map[use]map[solver.CacheExporterRecord]struct{}
	links map[solver.CacheExporterRecord]map[use]struct{}
	// All that link to each, perhaps more than once.
	children map[solver.CacheExporterRecord][]solver.CacheExporterRecord
}

type recorded struct {
	solver.CacheExporterRecordBase
	number int
	kept   solver.CacheExporterRecord
}

type use struct {
	src      solver.CacheExporterRecord
	input    int
	selector string
	digest   digest.Digest
}

func newRecorder(places map[digest.Digest]int) *recorder {
	return &recorder{
		chains: cacheimport.NewCacheChains(),
		places: places,
		users:  map[use]map[solver.CacheExporterRecord]struct{}{},
		links:  map[solver.CacheExporterRecord]map[use]struct{}{},

		children: map[solver.CacheExporterRecord][]solver.CacheExporterRecord{},
	}
}

func (r *recorder) Add(dgst digest.Digest, deps [][]solver.CacheLink, results []solver.CacheExportResult) (solver.CacheExporterRecord, bool, error) {
	read := record{Digest: dgst, Inputs: [][]source{}, Results: [][]int{}}
	for _, res := range results {
		read.Results = append(read.Results, placed(res.Result, r.places))
	}
	own := make([][]solver.CacheLink, len(deps))
	uses := map[use]struct{}{}
	var candidates map[solver.CacheExporterRecord]struct{}
	for i, links := range deps {
		sources := []source{}
		users := map[solver.CacheExporterRecord]struct{}{}
		for _, l := range links {
			src, ok := l.Src.(*recorded)
			if !ok { // not kept; CacheChains will refuse it
				own[i] = append(own[i], solver.CacheLink{Selector: l.Selector})
				continue
			}
			own[i] = append(own[i], solver.CacheLink{Selector: l.Selector, Src: src.kept})
			sources = append(sources, source{Selector: l.Selector, Node: src.number})
			u := use{src: src.kept, input: i, selector: l.Selector, digest: dgst}
			uses[u] = struct{}{}
			maps.Copy(users, r.users[u])
		}
		read.Inputs = append(read.Inputs, sources)
		if i == 0 {
			candidates = users
		}
		maps.DeleteFunc(candidates, func(c solver.CacheExporterRecord, _ struct{}) bool {
			_, ok := users[c]
			return !ok
		})
	}
	kept, ok, err := r.chains.Add(dgst, own, results)
	if err != nil || kept == nil {
		return nil, ok, err
	}
	r.merges.Lossy = r.merges.Lossy || len(candidates) > 1
	for c := range candidates {
		below := map[solver.CacheExporterRecord]struct{}{}
		r.walk(c, below)
		for u := range uses {
			_, loop := below[u.src]
			r.merges.Lossy = r.merges.Lossy || loop
		}
		equal := maps.Equal(uses, r.links[c])
		r.merges.Exact = r.merges.Exact || equal
		r.merges.Inexact = r.merges.Inexact || !equal
	}
	if r.links[kept] == nil {
		r.links[kept] = map[use]struct{}{}
	} else if len(deps) == 0 {
		r.merges.Exact = true
	}
	for u := range uses {
		if r.users[u] == nil {
			r.users[u] = map[solver.CacheExporterRecord]struct{}{}
		}
		r.users[u][kept] = struct{}{}
		r.children[u.src] = append(r.children[u.src], kept)
		r.links[kept][u] = struct{}{}
	}
	r.records = append(r.records, read)
	return &recorded{number: len(r.records) - 1, kept: kept}, true, nil
}

// walk gathers a record and all that need it.
func (r *recorder) walk(at solver.CacheExporterRecord, found map[solver.CacheExporterRecord]struct{}) {
	if _, ok := found[at]; ok {
		return
	}
	found[at] = struct{}{}
	for _, child := range r.children[at] {
		r.walk(child, found)
	}
}

// --- inline -------------------------------------------------------------------

func (a *answer) inline(q question) error {
	var config types.CacheConfig
	if err := json.Unmarshal(q.Text, &config); err != nil {
		return err
	}
	exporter := inline.NewExporter()
	if err := cacheimport.ParseConfig(config, everyLayer(config), exporter); err != nil {
		return err
	}
	text, err := exporter.(interface {
		ExportForLayers(context.Context, []digest.Digest) ([]byte, error)
	}).ExportForLayers(context.Background(), q.Layers)
	a.Text = text
	return err
}

// --- lookup -------------------------------------------------------------------

func (a *answer) lookup(q question) error {
	ctx := context.Background()
	// The daemon's own way in. It gives a cache manager, which does not tell what is in it.
	if err := resolve(ctx, q); err != nil {
		return fmt.Errorf("import: %w", err)
	}

	// The same steps as importInlineCache takes, with what it made in hand.
	var config types.CacheConfig
	if err := json.Unmarshal(q.Text, &config.Records); err != nil {
		return err
	}
	for i, blob := range q.Layers {
		config.Layers = append(config.Layers, types.CacheLayer{Blob: blob, ParentIndex: i - 1})
	}
	places := numbers(q.Layers)
	rec := newRecorder(places)
	if err := cacheimport.ParseConfig(config, everyLayer(config), rec); err != nil {
		return err
	}
	a.Records, a.Merges = rec.records, rec.merges
	if a.Merges.Lossy {
		return nil // what is found may not be the same twice
	}
	keys, results, err := cacheimport.NewCacheKeyStorage(rec.chains, nil)
	if err != nil {
		return err
	}
	w := walker{keys: keys, links: map[string]map[edge][]string{}}
	for _, build := range q.Builds {
		var ofBuild [][][]int
		var matches []map[string]struct{}
		for _, n := range build {
			found := w.matches(n, matches)
			matches = append(matches, found)
			ofNode := [][]int{}
			for id := range found {
				if err := keys.WalkResults(id, func(res solver.CacheResult) error {
					remotes, err := results.LoadRemotes(ctx, res, nil, nil)
					for _, r := range remotes {
						ofNode = append(ofNode, placed(r, places))
					}
					return err
				}); err != nil {
					return err
				}
			}
			slices.SortFunc(ofNode, slices.Compare)
			ofBuild = append(ofBuild, slices.CompactFunc(ofNode, slices.Equal))
		}
		a.Found = append(a.Found, ofBuild)
	}
	return nil
}

// walker asks for keys as the solver does: by the links from what its inputs matched.
// WalkLinks itself takes the digest of a vertex, of which a record only has the hash.
type walker struct {
	keys  solver.CacheKeyStorage
	links map[string]map[edge][]string
}

type edge struct {
	digest   digest.Digest
	input    int
	selector string
}

// matches gives the keys that are found by every input of a node.
func (w *walker) matches(n node, sources []map[string]struct{}) map[string]struct{} {
	found := map[string]struct{}{}
	if len(n.Inputs) == 0 {
		if id := n.Digest.String(); w.keys.Exists(id) {
			found[id] = struct{}{}
		}
		return found
	}
	for i, in := range n.Inputs {
		byInput := map[string]struct{}{}
		for src := range sources[in.Node] {
			for _, id := range w.linksOf(src)[edge{digest: n.Digest, input: i, selector: in.Selector}] {
				byInput[id] = struct{}{}
			}
		}
		if i == 0 {
			found = byInput
		}
		maps.DeleteFunc(found, func(id string, _ struct{}) bool {
			_, ok := byInput[id]
			return !ok
		})
	}
	return found
}

func (w *walker) linksOf(id string) map[edge][]string {
	if known, ok := w.links[id]; ok {
		return known
	}
	links := map[edge][]string{}
	_ = w.keys.(interface {
		WalkLinksAll(string, func(string, solver.CacheInfoLink) error) error
	}).WalkLinksAll(id, func(to string, l solver.CacheInfoLink) error {
		e := edge{digest: l.Digest, input: int(l.Input), selector: l.Selector.String()}
		links[e] = append(links[e], to)
		return nil
	})
	w.links[id] = links
	return links
}

// resolve imports an image that has the records in its config.
func resolve(ctx context.Context, q question) error {
	store := blobs{}
	type history struct {
		CreatedBy string `json:"created_by"`
	}
	image := map[string]any{
		"rootfs":                 map[string]any{"type": "layers", "diff_ids": q.Layers},
		"history":                make([]history, len(q.Layers)),
		"moby.buildkit.cache.v0": q.Text,
	}
	manifest := ocispecs.Manifest{MediaType: ocispecs.MediaTypeImageManifest}
	manifest.SchemaVersion = 2
	manifest.Config = store.put(ocispecs.MediaTypeImageConfig, image)
	for _, blob := range q.Layers {
		manifest.Layers = append(manifest.Layers, layer(blob).Descriptor)
	}
	desc := store.put(manifest.MediaType, manifest)
	_, err := remotecache.NewImporter(store).Resolve(ctx, desc, "oracle", nil)
	return err
}

// blobs is a store of the blobs that it holds; it claims to have any other.
type blobs map[digest.Digest][]byte

func (b blobs) put(mediaType string, value any) ocispecs.Descriptor {
	encoded, err := json.Marshal(value)
	if err != nil {
		log.Fatal(err)
	}
	desc := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(encoded), Size: int64(len(encoded))}
	b[desc.Digest] = encoded
	return desc
}

func (b blobs) ReaderAt(_ context.Context, desc ocispecs.Descriptor) (content.ReaderAt, error) {
	return blob{bytes.NewReader(b[desc.Digest])}, nil
}

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }
