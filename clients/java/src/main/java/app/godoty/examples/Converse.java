package app.godoty.examples;

import app.godoty.v1.AgentServiceGrpc;
import app.godoty.v1.AgentServiceGrpc.AgentServiceBlockingStub;
import app.godoty.v1.ConverseRequest;
import app.godoty.v1.ConverseResponse;
import app.godoty.v1.GetSessionMetricsRequest;
import app.godoty.v1.Totals;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.util.Iterator;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** Holds a conversation of two turns and compares what it cost with the session's metrics. */
public final class Converse {
  private static final Set<String> LOOPBACK = Set.of("localhost", "127.0.0.1", "[::1]");

  private record Turn(String sessionId, Totals totals) {}

  private Converse() {}

  public static void main(String[] arguments) {
    String target = System.getenv().getOrDefault("GODOTY_LISTEN", "");
    String apiKey = System.getenv().getOrDefault("GODOTY_API_KEY", "");
    if (target.isEmpty() || apiKey.isEmpty()) {
      fail("set GODOTY_LISTEN and GODOTY_API_KEY");
    }
    ManagedChannel channel = connect(target);
    try {
      run(AgentServiceGrpc.newBlockingStub(channel).withInterceptors(bearer(apiKey)));
    } catch (StatusRuntimeException error) {
      fail(error.getStatus().toString());
    } finally {
      channel.shutdownNow();
    }
  }

  /** Speaks plain text to this machine, TLS to any other. */
  private static ManagedChannel connect(String target) {
    boolean loopback = LOOPBACK.contains(target.replaceAll(":\\d+$", ""));
    return Grpc.newChannelBuilder(
            target, loopback ? InsecureChannelCredentials.create() : TlsChannelCredentials.create())
        .build();
  }

  private static io.grpc.ClientInterceptor bearer(String apiKey) {
    Metadata metadata = new Metadata();
    metadata.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + apiKey);
    return MetadataUtils.newAttachHeadersInterceptor(metadata);
  }

  private static void run(AgentServiceBlockingStub agent) {
    Turn first = say(agent, "", "Hello from Java.");
    Turn second = say(agent, first.sessionId(), "And once more.");
    Totals totals =
        agent
            .withDeadlineAfter(30, TimeUnit.SECONDS)
            .getSessionMetrics(
                GetSessionMetricsRequest.newBuilder().setSessionId(first.sessionId()).build())
            .getTotals();
    System.out.printf("metrics: cost_usd=%s turns=%d%n", totals.getCostUsd(), totals.getTurns());
    if (!totals.getCostUsd().equals(second.totals().getCostUsd())) {
      fail("the metrics and the last turn disagree: " + second.totals().getCostUsd());
    }
  }

  /** Runs one turn, prints the answer and tells the session's id and its totals after the turn. */
  private static Turn say(AgentServiceBlockingStub agent, String sessionId, String text) {
    ConverseRequest request =
        ConverseRequest.newBuilder().setSessionId(sessionId).setText(text).build();
    Iterator<ConverseResponse> stream =
        agent.withDeadlineAfter(2, TimeUnit.MINUTES).converse(request);
    Totals totals = null;
    while (stream.hasNext()) {
      ConverseResponse response = stream.next();
      switch (response.getEventCase()) {
        case TURN_STARTED -> sessionId = response.getTurnStarted().getSessionId();
        case TEXT_DELTA -> System.out.print(response.getTextDelta().getText());
        case TURN_FINISHED -> totals = response.getTurnFinished().getSessionTotals();
        default -> {}
      }
    }
    if (totals == null) {
      fail("the stream ended before its turn");
    }
    System.out.printf(
        "%nsession_totals: cost_usd=%s turns=%d%n", totals.getCostUsd(), totals.getTurns());
    return new Turn(sessionId, totals);
  }

  private static void fail(String why) {
    System.err.println("converse: " + why);
    System.exit(1);
  }
}
