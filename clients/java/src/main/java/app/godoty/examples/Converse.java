package app.godoty.examples;

import app.godoty.v1.AgentServiceGrpc.AgentServiceBlockingStub;
import app.godoty.v1.ConverseRequest;
import app.godoty.v1.ConverseResponse;
import app.godoty.v1.GetSessionMetricsRequest;
import app.godoty.v1.Totals;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;

/** Holds a conversation of two turns and compares what it cost with the session's metrics. */
public final class Converse {
  private static final Example EXAMPLE = new Example("converse");

  private record Turn(String sessionId, Totals totals) {}

  private Converse() {}

  public static void main(String[] arguments) {
    EXAMPLE.run(Converse::run);
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
      EXAMPLE.fail("the metrics and the last turn disagree: " + second.totals().getCostUsd());
    }
  }

  /** Runs one turn, prints the answer, the session's id and its totals after the turn. */
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
      EXAMPLE.fail("the stream ended before its turn");
    }
    System.out.printf(
        "%nsession_totals: cost_usd=%s turns=%d%n", totals.getCostUsd(), totals.getTurns());
    return new Turn(sessionId, totals);
  }
}
