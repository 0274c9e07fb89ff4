package app.godoty.examples;

import app.godoty.Godoty;
import app.godoty.Turn;
import app.godoty.v1.ConverseRequest;
import app.godoty.v1.Totals;
import app.godoty.v1.TurnEvent;

/** Holds a conversation of two turns and compares what it cost with the session's metrics. */
public final class Converse {
  private static final Example EXAMPLE = new Example("converse");

  private Converse() {}

  public static void main(String[] arguments) {
    EXAMPLE.run(Converse::run);
  }

  private static void run(Godoty godoty) {
    String sessionId = say(godoty, "", "Hello from Java.").sessionId();
    Turn second = say(godoty, sessionId, "And once more.");
    Totals totals = godoty.sessionMetrics(sessionId).getTotals();
    System.out.printf("metrics: cost_usd=%s turns=%d%n", totals.getCostUsd(), totals.getTurns());
    String costUsd = second.finished().orElseThrow().getSessionTotals().getCostUsd();
    if (!totals.getCostUsd().equals(costUsd)) {
      EXAMPLE.fail("the metrics and the last turn disagree: " + costUsd);
    }
  }

  /** Runs one turn; it prints the answer and the session's totals after the turn. */
  private static Turn say(Godoty godoty, String sessionId, String text) {
    ConverseRequest request =
        ConverseRequest.newBuilder().setSessionId(sessionId).setText(text).build();
    try (Turn turn = godoty.converse(request)) {
      for (TurnEvent event : turn) {
        System.out.print(event.getTextDelta().getText());
      }
      Totals totals = turn.finished().orElseThrow().getSessionTotals();
      System.out.printf(
          "%nsession_totals: cost_usd=%s turns=%d%n", totals.getCostUsd(), totals.getTurns());
      return turn;
    }
  }
}
