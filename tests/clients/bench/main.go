// Command bench does with BuildKit's own packages what benches/against_buildkit.rs
// measures: read a cache config, and write the inline cache of an image with these
// layers, base64 included.
//
//	bench read CONFIG LAYERS          only reads the files
//	bench once CONFIG LAYERS          does it once
//	bench time CONFIG LAYERS SECONDS  warms up, then does it for so long, or twice
//
// It prints JSON: the time of each run, the peak of its resident memory, and what
// was written. `make peers` builds it.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache/remotecache/inline"
	cacheimport "github.com/moby/buildkit/cache/remotecache/v1"
	types "github.com/moby/buildkit/cache/remotecache/v1/types"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

type report struct {
	Nanoseconds []int64 `json:"nanoseconds"`
	PeakKiB     int     `json:"peak_kib"`
	Records     int     `json:"records"`
	Results     int     `json:"results"`
	Bytes       int     `json:"bytes"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: bench read|once|time CONFIG LAYERS [SECONDS]")
	}
	config := read(os.Args[2])
	var layers []digest.Digest
	must(json.Unmarshal(read(os.Args[3]), &layers))
	// A daemon has this from the manifest beside the config, or from its own store.
	provider := cacheimport.DescriptorProvider{}
	for _, l := range layers {
		provider[l] = cacheimport.DescriptorProviderPair{
			Descriptor: ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerGzip, Digest: l, Size: 1},
			Provider:   none{},
		}
	}
	var r report
	switch os.Args[1] {
	case "read":
	case "once":
		// Before anything else takes memory.
		text := work(config, provider, layers)
		r.PeakKiB = peak()
		r.describe(text)
	case "time":
		seconds, err := strconv.ParseFloat(os.Args[4], 64)
		must(err)
		text := work(config, provider, layers)
		for begun := time.Now(); len(r.Nanoseconds) < 2 || time.Since(begun).Seconds() < seconds; {
			started := time.Now()
			text = work(config, provider, layers)
			r.Nanoseconds = append(r.Nanoseconds, time.Since(started).Nanoseconds())
		}
		r.describe(text)
	default:
		log.Fatalf("no such mode: %s", os.Args[1])
	}
	if r.PeakKiB == 0 {
		r.PeakKiB = peak()
	}
	must(json.NewEncoder(os.Stdout).Encode(r))
}

func work(config []byte, provider cacheimport.DescriptorProvider, layers []digest.Digest) string {
	exporter := inline.NewExporter()
	must(cacheimport.Parse(config, provider, exporter))
	text, err := exporter.(interface {
		ExportForLayers(context.Context, []digest.Digest) ([]byte, error)
	}).ExportForLayers(context.Background(), layers)
	must(err)
	return base64.StdEncoding.EncodeToString(text)
}

func (r *report) describe(encoded string) {
	text, err := base64.StdEncoding.DecodeString(encoded)
	must(err)
	var records []types.CacheRecord
	must(json.Unmarshal(text, &records))
	r.Records, r.Bytes = len(records), len(encoded)
	for _, record := range records {
		r.Results += len(record.Results) + len(record.ChainedResults)
	}
}

// peak is the most resident memory that this process ever had, in KiB.
func peak() int {
	for line := range strings.Lines(string(read("/proc/self/status"))) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib
		}
	}
	log.Fatal("/proc/self/status has no VmHWM")
	return 0
}

func read(path string) []byte {
	text, err := os.ReadFile(path)
	must(err)
	return text
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// none provides no blob; none is asked for.
type none struct{}

func (none) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return nil, os.ErrNotExist
}
