package app.godoty.conformance;

import app.godoty.ActionResults;
import app.godoty.Tool;
import app.godoty.Turn;
import app.godoty.TurnBuilder;
import app.godoty.v1.Action;
import app.godoty.v1.ActionResult;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The tools and approvals of the conformance program, which always do the same. */
final class ConformanceTools {
  private ConformanceTools() {}

  /** Gives a turn the tools and the approvals of a command. */
  static void apply(TurnBuilder turn, JsonObject given) {
    if (given.has("tools")) {
      for (JsonElement each : given.getAsJsonArray("tools")) {
        turn.tool(toolOf(each.getAsJsonObject()));
      }
    }
    if (given.has("approval")) {
      JsonObject approval = given.getAsJsonObject("approval");
      turn.approval(action -> approve(action, approval));
    }
  }

  /** Returns the answers of a command, in place of a text. */
  static List<ActionResult> answersOf(JsonObject given) {
    List<ActionResult> found = new ArrayList<>();
    if (given.has("answers")) {
      for (JsonElement each : given.getAsJsonArray("answers")) {
        String id = Conformance.text(each.getAsJsonObject(), "action_id");
        found.add(answerTo(Action.newBuilder().setActionId(id).build(), each.getAsJsonObject()));
      }
    }
    return found;
  }

  static List<Object> actionsOf(Turn turn) {
    List<Object> found = new ArrayList<>();
    for (Action each : turn.actions()) {
      found.add(
          Map.of(
              "action_id", each.getActionId(),
              "kind", each.getKind().name(),
              "name", each.getName(),
              "input_json", each.getInputJson()));
    }
    return found;
  }

  private static Tool toolOf(JsonObject given) {
    String name = Conformance.text(given, "name");
    return new Tool(
        name,
        Conformance.text(given, "description"),
        Conformance.text(given, "input_schema"),
        input -> {
          Conformance.print(Map.of("event", "tool_ran", "name", name, "input", input));
          if (given.has("sleep_ms")) {
            Thread.sleep(given.get("sleep_ms").getAsLong());
          }
          if (given.has("fails")) {
            throw new IllegalStateException(Conformance.text(given, "fails"));
          }
          return valueOf(given.get("returns"));
        });
  }

  private static ActionResult approve(Action action, JsonObject given) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("event", "approval_asked");
    line.put("name", action.getName());
    line.put("reason", action.getReason());
    line.put("input", JsonParser.parseString(action.getInputJson()));
    Conformance.print(line);
    if (given.has("fail")) {
      throw new IllegalStateException(Conformance.text(given, "fail"));
    }
    return answerTo(action, given);
  }

  private static ActionResult answerTo(Action action, JsonObject given) {
    if (given.has("approve")) {
      return ActionResults.approve(action);
    }
    if (given.has("input")) {
      return ActionResults.approve(action, Conformance.text(given, "input"));
    }
    if (given.has("deny")) {
      return ActionResults.deny(action, Conformance.text(given, "deny"));
    }
    return given.has("output") ? ActionResults.output(action, valueOf(given.get("output"))) : null;
  }

  private static Object valueOf(JsonElement given) {
    if (given == null || given.isJsonNull()) {
      return null;
    }
    boolean isText = given.isJsonPrimitive() && given.getAsJsonPrimitive().isString();
    return isText ? given.getAsString() : given;
  }
}
