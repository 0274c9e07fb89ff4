package app.godoty;

import app.godoty.v1.Action;
import app.godoty.v1.ActionResult;
import app.godoty.v1.ConverseRequest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;

/** The options of a turn. */
public final class TurnBuilder {
  private final Godoty client;
  private final ConverseRequest request;
  private final List<Tool> tools = new ArrayList<>();
  private Function<Action, ActionResult> approval;
  private Duration deadline;

  TurnBuilder(Godoty client, ConverseRequest request) {
    this.client = client;
    this.request = request;
  }

  /**
   * Lets the model call a tool; tools run one after the other, in the thread that reads the turn. A tool of the caller's that
   * was not added is answered with an error, which the model sees; without any, the turn ends with its actions.
   */
  public TurnBuilder tool(Tool tool) {
    tools.add(Objects.requireNonNull(tool));
    return this;
  }

  /** Lets the model call a tool; see {@link #tool(Tool)} and {@link Tool}. */
  public TurnBuilder tool(String name, String description, String inputSchema, Tool.Function function) {
    return tool(new Tool(name, description, inputSchema, function));
  }

  /**
   * Answers calls that need approval, before tools run, with {@link ActionResults}. Null leaves the action open, and so does an
   * exception, which ends the turn's events. Actions for a reviewer are not asked. Without it, the turn ends with its actions.
   */
  public TurnBuilder approval(Function<Action, ActionResult> approval) {
    this.approval = Objects.requireNonNull(approval);
    return this;
  }

  /** Cancels the turn when its deadline has passed, counted from the first read. */
  public TurnBuilder deadline(Duration deadline) {
    this.deadline = Objects.requireNonNull(deadline);
    return this;
  }

  /** Returns the turn, which begins when its events are read. */
  public Turn build() {
    Leaving leaving = new Leaving();
    return new Turn(client, request, deadline, leaving, new Answers(List.copyOf(tools), approval, leaving));
  }
}
