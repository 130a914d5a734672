// Command direct solves with BuildKit's own Go client, in the ways that
// buildctl and buildx do not use: it solves a frontend or a definition by
// Control.Solve itself, or answers as clients did before results had definitions.
//
// Progress goes to standard error as buildctl's rawjson, the exporter's response
// to standard output as JSON. `make peers` builds it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/buildid"
	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

var (
	addr = flag.String("addr", "", "address of the daemon")
	mode = flag.String("mode", "", "frontend, definition, twice: a definition two times in one session,\n"+
		"gateway: a definition by a gateway call, which alone names the imports,\n"+
		"old-refs, or marshal: print the definition")
	contextDir = flag.String("context", "", "directory with the sources")
	command    = flag.String("command", "cat /src/file | tr a-z A-Z > /out", "shell command of the definition's step")
	ref        = flag.String("ref", "", "the build's ref, in place of a random one")
	behind     = flag.Bool("gateway", false, "the frontend gateway.v0 in place of dockerfile.v0")
	policy     = flag.String("policy", "", "a source policy of the session: FROM=TO, the beginnings of identifiers")
	image      = flag.String("image", "", "an image for the definition's step, in place of base and source")
	outputs    list
	exports    list
	imports    list
	opts       list
)

func main() {
	flag.Var(&outputs, "output", "exporter, as type=…,attribute=…")
	flag.Var(&exports, "export-cache", "cache export, as type=…,attribute=…")
	flag.Var(&imports, "import-cache", "cache import, as type=…,attribute=…")
	flag.Var(&opts, "opt", "frontend option, as key=value")
	flag.Parse()
	if err := run(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		// The error's details, as buildctl shows them: where in the sources it was.
		for _, source := range errdefs.Sources(err) {
			_ = source.Print(os.Stderr)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if *mode == "marshal" {
		def, err := definition(ctx)
		if err != nil {
			return err
		}
		return llb.WriteTo(def, os.Stdout)
	}
	c, err := client.New(ctx, *addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if *mode == "old-refs" {
		return oldRefs(ctx, c)
	}

	fs, err := fsutil.NewFS(*contextDir)
	if err != nil {
		return err
	}
	opt := client.SolveOpt{
		LocalMounts:   map[string]fsutil.FS{"context": fs, "dockerfile": fs},
		FrontendAttrs: fields(opts),
		Ref:           *ref,
	}
	for _, output := range outputs {
		kind, attrs := entry(output)
		opt.Exports = append(opt.Exports, client.ExportEntry{Type: kind, Attrs: attrs})
	}
	for _, export := range exports {
		kind, attrs := entry(export)
		opt.CacheExports = append(opt.CacheExports, client.CacheOptionsEntry{Type: kind, Attrs: attrs})
	}
	var gatewayImports []gwclient.CacheOptionsEntry
	for _, cache := range imports {
		kind, attrs := entry(cache)
		if *mode == "gateway" {
			gatewayImports = append(gatewayImports, gwclient.CacheOptionsEntry{Type: kind, Attrs: attrs})
		} else {
			opt.CacheImports = append(opt.CacheImports, client.CacheOptionsEntry{Type: kind, Attrs: attrs})
		}
	}
	if from, to, ok := strings.Cut(*policy, "="); ok {
		opt.SourcePolicyProvider = policysession.NewPolicyProvider(
			func(_ context.Context, request *policysession.CheckPolicyRequest) (*policysession.DecisionResponse, *gateway.ResolveSourceMetaRequest, error) {
				source := request.Source.Source
				if !strings.HasPrefix(source.Identifier, from) { // a digest may follow
					return &policysession.DecisionResponse{Action: spb.PolicyAction_ALLOW}, nil, nil
				}
				update := &pb.SourceOp{Identifier: to, Attrs: source.Attrs}
				return &policysession.DecisionResponse{Action: spb.PolicyAction_CONVERT, Update: update}, nil, nil
			})
	}
	var def *llb.Definition
	switch *mode {
	case "frontend":
		opt.Frontend = "dockerfile.v0"
		if *behind {
			opt.Frontend = "gateway.v0"
		}
	case "definition", "twice", "gateway":
		if def, err = definition(ctx); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown mode %q", *mode)
	}

	if *mode == "twice" {
		shared, err := session.NewSession(ctx, "")
		if err != nil {
			return err
		}
		defer shared.Close()
		shared.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource(opt.LocalMounts)))
		go shared.Run(ctx, grpchijack.Dialer(c.ControlClient()))
		opt.SharedSession, opt.SessionPreInitialized = shared, true
		if _, err := c.Solve(ctx, def, opt, nil); err != nil {
			return err
		}
	}

	display, err := progressui.NewDisplay(os.Stderr, progressui.RawJSONMode)
	if err != nil {
		return err
	}
	statuses := make(chan *client.SolveStatus)
	shown := make(chan error, 1)
	go func() {
		_, err := display.UpdateFrom(ctx, statuses)
		shown <- err
	}()
	var response *client.SolveResponse
	if *mode == "gateway" {
		build := func(ctx context.Context, c gwclient.Client) (*gwclient.Result, error) {
			return c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB(), CacheImports: gatewayImports, Evaluate: true})
		}
		response, err = c.Build(ctx, opt, "", build, statuses)
	} else {
		response, err = c.Solve(ctx, def, opt, statuses)
	}
	<-shown
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(response.ExporterResponse)
}

// definition is a base, a source and a step, each a layer.
func definition(ctx context.Context) (*llb.Definition, error) {
	sources := llb.Local("context")
	base := llb.Scratch().File(llb.Copy(sources, "rootfs.tar", "/", &llb.CopyInfo{AttemptUnpack: true}),
		llb.WithCustomName("[1/3] base"))
	with := base.File(llb.Copy(sources, "file", "/src/", &llb.CopyInfo{CreateDestPath: true}),
		llb.WithCustomName("[2/3] source"))
	if *image != "" {
		with = llb.Image(*image)
	}
	program := llb.NewSourceMap(nil, "program", "", []byte(*command))
	made := with.Run(llb.Args([]string{"/bin/sh", "-c", *command}), llb.WithCustomName("[3/3] step"),
		program.Location([]*pb.Range{{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}}))
	return made.Root().Marshal(ctx)
}

// oldRefs returns a result the way clients did before refs came with definitions.
func oldRefs(ctx context.Context, c *client.Client) error {
	ref := identity.NewID()
	request := &controlapi.SolveRequest{Ref: ref, Cache: &controlapi.CacheOptions{}}
	for _, output := range outputs {
		kind, attrs := entry(output)
		request.Exporters = append(request.Exporters, &controlapi.Exporter{Type: kind, Attrs: attrs})
	}
	for _, export := range exports {
		kind, attrs := entry(export)
		request.Cache.Exports = append(request.Cache.Exports, &controlapi.CacheOptionsEntry{Type: kind, Attrs: attrs})
	}
	statuses, err := c.ControlClient().Status(ctx, &controlapi.StatusRequest{Ref: ref})
	if err != nil {
		return err
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		for {
			message, err := statuses.Recv()
			if err != nil {
				return
			}
			_ = json.NewEncoder(os.Stderr).Encode(client.NewSolveStatus(message))
		}
	}()
	returned := make(chan error, 1)
	go func() { returned <- returnOldRef(buildid.AppendToOutgoingContext(ctx, ref)) }()
	response, err := c.ControlClient().Solve(ctx, request)
	<-shown
	if err != nil {
		return err
	}
	if err := <-returned; err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(response.ExporterResponse)
}

func returnOldRef(ctx context.Context) error {
	conn, err := grpc.NewClient(*addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	bridge := gateway.NewLLBBridgeClient(conn)
	def, err := llb.Scratch().File(llb.Mkfile("/file", 0o644, []byte("x"))).Marshal(ctx)
	if err != nil {
		return err
	}
	solved, err := bridge.Solve(ctx, &gateway.SolveRequest{Definition: def.ToPB(), AllowResultReturn: true})
	if err != nil {
		return err
	}
	id := solved.GetResult().GetRefDeprecated()
	if id == "" {
		id = solved.GetResult().GetRef().GetId()
	}
	result := &gateway.Result{Result: &gateway.Result_RefDeprecated{RefDeprecated: id}}
	_, err = bridge.Return(ctx, &gateway.ReturnRequest{Result: result})
	return err
}

func entry(text string) (string, map[string]string) {
	attrs := fields(strings.Split(text, ","))
	kind := attrs["type"]
	delete(attrs, "type")
	return kind, attrs
}

func fields(pairs []string) map[string]string {
	attrs := map[string]string{}
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		attrs[key] = value
	}
	return attrs
}
