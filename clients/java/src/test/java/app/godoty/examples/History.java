package app.godoty.examples;

import app.godoty.Godoty;
import app.godoty.v1.ContentBlock;
import app.godoty.v1.Message;
import app.godoty.v1.ReadMessageRequest;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Prints the size of each message of a session. It reads whole the messages that a list shows cut. */
public final class History {
  private static final Example EXAMPLE = new Example("history");

  private History() {}

  public static void main(String[] arguments) {
    EXAMPLE.run(History::run);
  }

  private static void run(Godoty godoty) {
    String sessionId = System.getenv("GODOTY_SESSION");
    if (sessionId == null) {
      throw new IllegalStateException("set GODOTY_SESSION");
    }
    int count = 0;
    for (Message message : godoty.messages(sessionId)) {
      show(message, contentOf(godoty, sessionId, message));
      count++;
    }
    System.out.printf("messages: %d%n", count);
  }

  /**
   * Returns the content of a listed message. If a block of it is cut, the content comes from
   * ReadMessage, where a block may be in several pieces.
   */
  private static List<ContentBlock> contentOf(Godoty godoty, String sessionId, Message message) {
    if (message.getContentList().stream().noneMatch(ContentBlock::getTruncated)) {
      return message.getContentList();
    }
    ReadMessageRequest request =
        ReadMessageRequest.newBuilder()
            .setSessionId(sessionId)
            .setNumber(message.getNumber())
            .build();
    List<ContentBlock> pieces = new ArrayList<>();
    godoty.agents().readMessage(request).forEachRemaining(response -> pieces.add(response.getContent()));
    return pieces;
  }

  private static void show(Message message, List<ContentBlock> content) {
    String role = message.getRole().name().replace("ROLE_", "").toLowerCase(Locale.ROOT);
    long bytes = 0;
    for (ContentBlock block : content) {
      bytes += textOf(block).getBytes(StandardCharsets.UTF_8).length;
    }
    System.out.printf("message: number=%d role=%s bytes=%d%n", message.getNumber(), role, bytes);
  }

  private static String textOf(ContentBlock block) {
    return switch (block.getBlockCase()) {
      case TEXT -> block.getText();
      case REASONING -> block.getReasoning();
      case TOOL_USE -> block.getToolUse().getInputJson();
      case TOOL_RESULT -> block.getToolResult().getOutput();
      default -> ""; // no text, such as an attachment, or of a later version
    };
  }
}
