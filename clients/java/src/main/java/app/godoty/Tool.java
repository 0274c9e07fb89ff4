package app.godoty;

import app.godoty.v1.ClientToolOutput;
import com.google.gson.JsonObject;
import java.util.Objects;

/**
 * A tool that this program runs for the model.
 *
 * @param name what the model calls it: 1 to 64 of {@code [A-Za-z0-9_-]}, the first a letter
 * @param description what the tool does, for the model: at most 1,000 printable characters; empty: the agent's definition
 *     declares the tool
 * @param inputSchema the JSON Schema of its input, an object, as JSON text; empty: an object without members
 * @param function what runs it
 */
public record Tool(String name, String description, String inputSchema, Function function) {
  public Tool {
    Objects.requireNonNull(name);
    Objects.requireNonNull(description);
    Objects.requireNonNull(inputSchema);
    Objects.requireNonNull(function);
  }

  /** Runs a tool. */
  @FunctionalInterface
  public interface Function {
    /**
     * Returns the result: the model sees a string as text, a {@link ClientToolOutput} as it is, any other value as JSON by
     * Gson, and an exception by its message, in at most 64 KiB. The thread is interrupted once the turn is left.
     *
     * @param input an object as the model wrote it: it may not be valid by the schema
     */
    Object run(JsonObject input) throws Exception;
  }
}
