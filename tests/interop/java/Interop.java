import com.google.protobuf.Any;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.DescriptorValidationException;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.rpc.ErrorInfo;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCalls;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** grpc-java with messages described at run time (`buf build`), both of its ways to name a Unix socket, and Nimbus to verify what tokend handed out. */
class Interop {
    private static final String SOCKET = System.getenv("TOKEND_SOCKET");
    private static final String ISSUER = System.getenv("IDP_HTTP");
    private static boolean failed;

    interface Body {
        void run() throws Exception;
    }

    static void check(String name, Body body) {
        try {
            body.run();
            System.out.println("ok grpc-java: " + name);
        } catch (Exception | AssertionError error) {
            failed = true;
            System.out.println("FAIL grpc-java: " + name + ": " + error.toString().replace('\n', ' '));
        }
    }

    static void holds(boolean condition, Object what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    /** The messages of proto/, out of the descriptors that `buf build` made: imports come before what imports them. */
    static FileDescriptor read(Path descriptors) {
        try {
            var known = new HashMap<String, FileDescriptor>();
            for (FileDescriptorProto file : FileDescriptorSet.parseFrom(Files.readAllBytes(descriptors)).getFileList()) {
                var imports = file.getDependencyList().stream().map(known::get).toArray(FileDescriptor[]::new);
                known.put(file.getName(), FileDescriptor.buildFrom(file, imports));
            }
            return known.get("tokend/v1/credential.proto");
        } catch (IOException | DescriptorValidationException error) {
            throw new IllegalStateException(error);
        }
    }

    static final FileDescriptor PROTO = read(Path.of(System.getenv("DESCRIPTORS")));

    static MethodDescriptor<DynamicMessage, DynamicMessage> method(String name, MethodDescriptor.MethodType type) {
        var method = PROTO.findServiceByName("CredentialService").findMethodByName(name);
        return MethodDescriptor.<DynamicMessage, DynamicMessage>newBuilder()
                .setType(type)
                .setFullMethodName("tokend.v1.CredentialService/" + name)
                .setRequestMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getInputType())))
                .setResponseMarshaller(ProtoUtils.marshaller(DynamicMessage.getDefaultInstance(method.getOutputType())))
                .build();
    }

    static final MethodDescriptor<DynamicMessage, DynamicMessage> GET_TOKEN = method("GetToken", MethodDescriptor.MethodType.UNARY);
    static final MethodDescriptor<DynamicMessage, DynamicMessage> WATCH_TOKEN = method("WatchToken", MethodDescriptor.MethodType.SERVER_STREAMING);

    static DynamicMessage request(String message, String profile) {
        Descriptor descriptor = PROTO.findMessageTypeByName(message);
        return DynamicMessage.newBuilder(descriptor).setField(descriptor.findFieldByName("profile"), profile).build();
    }

    static Object field(DynamicMessage message, String name) {
        return message.getField(message.getDescriptorForType().findFieldByName(name));
    }

    static CallOptions within(long milliseconds) {
        return CallOptions.DEFAULT.withDeadlineAfter(milliseconds, TimeUnit.MILLISECONDS);
    }

    static DynamicMessage credential(Channel channel, String profile, long milliseconds) {
        var answer = ClientCalls.blockingUnaryCall(channel, GET_TOKEN, within(milliseconds), request("GetTokenRequest", profile));
        return (DynamicMessage) field(answer, "credential");
    }

    /** As an API would: signature by the issuer's published keys, type, issuer, audience, expiry. */
    static void verify(String token, JWSAlgorithm algorithm, String audience) throws Exception {
        var keys = JWKSourceBuilder.create(URI.create(ISSUER + "/jwks").toURL()).build();
        var processor = new DefaultJWTProcessor<>();
        processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(algorithm, keys));
        processor.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>(audience,
                new JWTClaimsSet.Builder().issuer(ISSUER).build(), Set.of("exp", "client_id")));
        processor.process(token, null);
    }

    static void tokens(Channel channel) {
        for (var c : Map.of(
                "basic", List.of("RS256", "urn:api:orders"),
                "post", List.of("ES256", "urn:api:billing"),
                "signed", List.of("ES256", "urn:api:billing"),
                "colon", List.of("RS256", "urn:api:orders")).entrySet()) {
            check(c.getKey() + ": the token verifies against the provider's keys", () -> {
                var credential = credential(channel, c.getKey(), 10_000);
                var token = (String) field(credential, "token");
                holds(field(credential, "authorization").equals("Bearer " + token), "authorization");
                verify(token, JWSAlgorithm.parse(c.getValue().get(0)), c.getValue().get(1));
            });
        }
        check("an unknown profile: NOT_FOUND with details", () -> {
            try {
                credential(channel, "nowhere", 10_000);
                throw new AssertionError("was answered");
            } catch (StatusRuntimeException error) {
                holds(error.getStatus().getCode() == Status.Code.NOT_FOUND, error);
                for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
                    holds(detail.unpack(ErrorInfo.class).getReason().equals("PROFILE_NOT_FOUND"), detail);
                }
            }
        });
        check("a provider that never answers: DEADLINE_EXCEEDED", () -> {
            try {
                credential(channel, "stuck", 500);
                throw new AssertionError("was answered");
            } catch (StatusRuntimeException error) {
                holds(error.getStatus().getCode() == Status.Code.DEADLINE_EXCEEDED, error);
            }
        });
        check("1 000 calls on one connection", () -> {
            var first = credential(channel, "basic", 10_000);
            for (int i = 0; i < 1000; i++) {
                holds(credential(channel, "basic", 10_000).equals(first), "another credential");
            }
        });
        check("health", () -> {
            var answer = HealthGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS)
                    .check(HealthCheckRequest.newBuilder().setService("basic").build());
            holds(answer.getStatus() == HealthCheckResponse.ServingStatus.SERVING, answer);
        });
        check("WatchToken: the present credential at once", () -> {
            var request = request("WatchTokenRequest", "basic");
            var events = ClientCalls.blockingServerStreamingCall(channel, WATCH_TOKEN, within(10_000), request);
            var credential = (DynamicMessage) field(events.next(), "credential");
            verify((String) field(credential, "token"), JWSAlgorithm.RS256, "urn:api:orders");
        });
    }

    public static void main(String[] arguments) throws Exception {
        var group = new EpollEventLoopGroup(1);
        ManagedChannel byAddress = NettyChannelBuilder.forAddress(new DomainSocketAddress(SOCKET))
                .eventLoopGroup(group).channelType(EpollDomainSocketChannel.class).usePlaintext().build();
        check("by DomainSocketAddress", () -> credential(byAddress, "fixed", 10_000));
        byAddress.shutdownNow();
        ManagedChannel byName = Grpc.newChannelBuilder("unix://" + SOCKET, InsecureChannelCredentials.create()).build();
        check("target unix:///path", () -> credential(byName, "fixed", 10_000));
        tokens(byName);
        byName.shutdownNow();
        group.shutdownGracefully(0, 1, TimeUnit.SECONDS);
        System.exit(failed ? 1 : 0);
    }
}
