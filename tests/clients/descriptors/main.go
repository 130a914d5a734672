// Writes the descriptors of the protocols that inlay speaks, as the pinned modules have them, to standard output:
// an encoded google.protobuf.FileDescriptorSet. tests/e2e/protocol.rs holds the definitions in proto/ against it.
package main

import (
	"log"
	"os"

	content "github.com/containerd/containerd/api/services/content/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	descriptor "github.com/containerd/containerd/api/types"
	control "github.com/moby/buildkit/api/services/control"
	types "github.com/moby/buildkit/api/types"
	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/solver/pb"
	status "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func main() {
	files := []protoreflect.FileDescriptor{
		control.File_github_com_moby_buildkit_api_services_control_control_proto,
		types.File_github_com_moby_buildkit_api_types_worker_proto,
		gateway.File_github_com_moby_buildkit_frontend_gateway_pb_gateway_proto,
		pb.File_github_com_moby_buildkit_solver_pb_ops_proto,
		auth.File_github_com_moby_buildkit_session_auth_auth_proto,
		content.File_services_content_v1_content_proto,
		images.File_services_images_v1_images_proto,
		descriptor.File_types_descriptor_proto,
		status.File_google_rpc_status_proto,
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range files {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	encoded, err := proto.Marshal(set)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.Write(encoded); err != nil {
		log.Fatal(err)
	}
}
