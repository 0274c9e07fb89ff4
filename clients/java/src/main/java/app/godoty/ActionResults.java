package app.godoty;

import app.godoty.v1.Action;
import app.godoty.v1.ActionApproval;
import app.godoty.v1.ActionDenial;
import app.godoty.v1.ActionResult;
import app.godoty.v1.ClientToolOutput;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.protobuf.ByteString;
import java.nio.charset.StandardCharsets;
import java.util.regex.Pattern;

/** Answers to actions, as the server takes them. */
public final class ActionResults {
  private static final int MAXIMUM_TEXT = 64 * 1024; // bytes of an output
  private static final int MAXIMUM_JSON = 32 * 1024; // bytes of an output
  private static final int MAXIMUM_WORDS = 1000; // characters of a reason or an error
  private static final String CUT = " […]";
  private static final Pattern UNPRINTABLE = Pattern.compile("[^\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}]+");
  private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

  private ActionResults() {}

  /** Lets a call run. */
  public static ActionResult approve(Action action) {
    return approve(action, "");
  }

  /** Lets a call run with another input, a JSON object as text. The model sees that it was changed. */
  public static ActionResult approve(Action action, String inputJson) {
    return to(action).setApprove(ActionApproval.newBuilder().setInputJson(inputJson)).build();
  }

  /** Answers a call with a denial, and the reason that the model sees. */
  public static ActionResult deny(Action action, String why) {
    return to(action).setDeny(ActionDenial.newBuilder().setWhy(words(why))).build();
  }

  /** Answers a call of a tool of this program, with what {@link Tool.Function#run} may return, or with an exception. */
  public static ActionResult output(Action action, Object value) {
    return to(action).setOutput(outputOf(value)).build();
  }

  private static ActionResult.Builder to(Action action) {
    return ActionResult.newBuilder().setActionId(action.getActionId());
  }

  private static ClientToolOutput outputOf(Object value) {
    if (value instanceof ClientToolOutput output) {
      return output;
    }
    if (value == null || value instanceof CharSequence) {
      return textOutput(value == null ? "" : value.toString());
    }
    if (value instanceof Throwable error) {
      String text = words(error.getMessage() == null ? error.getClass().getSimpleName() : error.getMessage());
      return ClientToolOutput.newBuilder().setError(text.isEmpty() ? "The tool failed." : text).build();
    }
    try {
      String text = JSON.toJson(value);
      return bytesOf(text).size() > MAXIMUM_JSON
          ? textOutput(text)
          : ClientToolOutput.newBuilder().setOutputJson(text).build();
    } catch (RuntimeException error) { // Gson cannot write it
      return outputOf(error);
    }
  }

  private static ClientToolOutput textOutput(String text) {
    ByteString bytes = bytesOf(text);
    if (bytes.size() > MAXIMUM_TEXT) {
      int end = MAXIMUM_TEXT - bytesOf(CUT).size();
      while ((bytes.byteAt(end) & 0xc0) == 0x80) { // within a character
        end--;
      }
      bytes = bytes.substring(0, end).concat(bytesOf(CUT));
    }
    return ClientToolOutput.newBuilder().setOutputTextBytes(bytes).build();
  }

  private static ByteString bytesOf(String text) {
    return ByteString.copyFrom(text.getBytes(StandardCharsets.UTF_8)); // with "?" for half a character
  }

  /** Returns a text that can be printed, in one line. */
  private static String words(String text) {
    String found = UNPRINTABLE.matcher(text).replaceAll(" ").strip();
    if (found.codePointCount(0, found.length()) <= MAXIMUM_WORDS) {
      return found;
    }
    return found.substring(0, found.offsetByCodePoints(0, MAXIMUM_WORDS - CUT.length())) + CUT;
  }
}
