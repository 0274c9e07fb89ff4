package app.godoty.examples;

import app.godoty.v1.AgentServiceGrpc;
import app.godoty.v1.AgentServiceGrpc.AgentServiceBlockingStub;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.util.Set;
import java.util.function.Consumer;

/** What the examples share: the connection they use, and how they report a failure. */
final class Example {
  private static final Set<String> LOOPBACK = Set.of("localhost", "127.0.0.1", "[::1]");

  private final String name;

  /** The name is what its messages about failures begin with. */
  Example(String name) {
    this.name = name;
  }

  /** Runs the example against the server at GODOTY_LISTEN. */
  void run(Consumer<AgentServiceBlockingStub> example) {
    String apiKey = setting("GODOTY_API_KEY");
    ManagedChannel channel = connect(setting("GODOTY_LISTEN"));
    try {
      example.accept(AgentServiceGrpc.newBlockingStub(channel).withInterceptors(bearer(apiKey)));
    } catch (StatusRuntimeException error) {
      fail(error.getStatus().toString());
    } finally {
      channel.shutdownNow();
    }
  }

  /** Returns a variable of the environment, which must be set. */
  String setting(String variable) {
    String value = System.getenv().getOrDefault(variable, "");
    if (value.isEmpty()) {
      fail("set " + variable);
    }
    return value;
  }

  /** Ends the process with status 1. */
  void fail(String why) {
    System.err.println(name + ": " + why);
    System.exit(1);
  }

  /** Speaks plain text to this machine, TLS to any other. */
  private static ManagedChannel connect(String target) {
    boolean loopback = LOOPBACK.contains(target.replaceAll(":\\d+$", ""));
    return Grpc.newChannelBuilder(
            target, loopback ? InsecureChannelCredentials.create() : TlsChannelCredentials.create())
        .build();
  }

  private static ClientInterceptor bearer(String apiKey) {
    Metadata metadata = new Metadata();
    metadata.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + apiKey);
    return MetadataUtils.newAttachHeadersInterceptor(metadata);
  }
}
