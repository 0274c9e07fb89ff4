package app.godoty;

import app.godoty.v1.Action;
import app.godoty.v1.ActionDecider;
import app.godoty.v1.ActionKind;
import app.godoty.v1.ActionResult;
import app.godoty.v1.ClientTool;
import app.godoty.v1.ConverseRequest;
import com.google.gson.JsonParser;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/** The answers to the actions of a turn: by tools, which this program runs, and by approvals. */
final class Answers {
  private static final int MAXIMUM_ANSWERS = 16; // of one request
  private static final int MAXIMUM_BYTES = 120 * 1024; // of one request's answers; the server takes 128 KiB

  private final List<Tool> tools;
  private final Function<Action, ActionResult> approval; // null: there is none
  private final Leaving leaving;
  private final Map<String, ActionResult> given = new HashMap<>(); // null: left open, or sent
  private Thread caller; // of a function; guarded by this

  Answers(List<Tool> tools, Function<Action, ActionResult> approval, Leaving leaving) {
    this.tools = tools;
    this.approval = approval;
    this.leaving = leaving;
  }

  /** Adds the tools to a request; one with answers has those of the turn that asked. */
  void declare(ConverseRequest.Builder request) {
    if (request.getActionResultsCount() > 0) {
      return;
    }
    for (Tool tool : tools) {
      if (!tool.description().isEmpty()) {
        request.addClientTools(
            ClientTool.newBuilder()
                .setToolName(tool.name())
                .setDescription(tool.description())
                .setInputSchema(tool.inputSchema()));
      }
    }
  }

  /** Returns the answers to actions, as many as one request takes: the others are asked again. */
  List<ActionResult> to(List<Action> actions) {
    for (ActionKind kind : List.of(ActionKind.ACTION_KIND_APPROVAL, ActionKind.ACTION_KIND_CLIENT_TOOL)) {
      for (Action action : actions) {
        if (action.getKind() == kind && !given.containsKey(action.getActionId())) {
          leaving.check();
          given.put(action.getActionId(), answer(action));
        }
      }
    }
    List<ActionResult> found = new ArrayList<>();
    int size = 0;
    for (Action action : actions) {
      ActionResult answer = given.get(action.getActionId());
      if (answer == null) {
        continue;
      }
      size += answer.getSerializedSize();
      if (found.size() == MAXIMUM_ANSWERS || !found.isEmpty() && size > MAXIMUM_BYTES) {
        break;
      }
      found.add(answer);
      given.put(action.getActionId(), null);
    }
    if (!found.isEmpty()) {
      leaving.check();
    }
    return found;
  }

  /** Interrupts the function that runs, if another thread does. */
  synchronized void interrupt() {
    if (caller != null && caller != Thread.currentThread()) {
      caller.interrupt();
    }
  }

  /** Returns the answer to an action; null: it is left open. */
  private ActionResult answer(Action action) {
    boolean isApproval = action.getKind() == ActionKind.ACTION_KIND_APPROVAL;
    if (action.getDecider() == ActionDecider.ACTION_DECIDER_REVIEWER
        || (isApproval ? approval == null : tools.isEmpty())) {
      return null;
    }
    begin();
    try {
      return isApproval ? approval.apply(action) : ActionResults.output(action, run(action));
    } finally {
      end();
    }
  }

  private Object run(Action action) {
    for (Tool tool : tools) {
      if (tool.name().equals(action.getName())) {
        try {
          return tool.function().run(JsonParser.parseString(action.getInputJson()).getAsJsonObject());
        } catch (InterruptedException interrupted) {
          Thread.currentThread().interrupt();
          return interrupted;
        } catch (Exception error) {
          return error;
        }
      }
    }
    return new IllegalArgumentException("there is no tool \"" + action.getName() + "\" here");
  }

  private synchronized void begin() {
    caller = Thread.currentThread();
  }

  private synchronized void end() {
    caller = null;
    if (leaving.isLeft()) {
      Thread.interrupted(); // was meant for the function
    }
  }
}
