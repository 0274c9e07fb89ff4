package app.godoty.conformance;

import app.godoty.Godoty;
import app.godoty.GodotyBuilder;
import app.godoty.GodotyException;
import app.godoty.LedgerExport;
import app.godoty.Turn;
import app.godoty.TurnBuilder;
import app.godoty.v1.Attachment;
import app.godoty.v1.ConverseRequest;
import app.godoty.v1.ExportLedgerRequest;
import app.godoty.v1.GetUsageRequest;
import app.godoty.v1.LedgerEntry;
import app.godoty.v1.OnDisconnect;
import app.godoty.v1.Totals;
import app.godoty.v1.TurnEvent;
import app.godoty.v1.UsageGroup;
import app.godoty.v1.UsageRow;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.protobuf.Timestamp;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Flow;

/**
 * Runs the commands of the tests in tests/clients/polyglot: one JSON object a line, with lines of JSON in answer, the last of
 * them with "done" or "error".
 */
public final class Conformance {
  private static final Gson JSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

  private Conformance() {}

  public static void main(String[] arguments) throws IOException {
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      try {
        print(Map.of("done", run(JSON.fromJson(line, JsonObject.class))));
      } catch (RuntimeException error) {
        print(Map.of("error", described(error)));
      }
    }
  }

  private static Object run(JsonObject given) {
    GodotyBuilder builder = Godoty.builder();
    if (given.has("target")) {
      builder.target(text(given, "target"));
    }
    if (given.has("api_key")) {
      builder.apiKey(text(given, "api_key"));
    }
    if (given.has("grace_ms")) {
      builder.disconnectGrace(Duration.ofMillis(given.get("grace_ms").getAsLong()));
    }
    try (Godoty godoty = builder.build()) {
      return switch (text(given, "do")) {
        case "converse" -> converse(godoty, given);
        case "metrics" -> totalsOf(godoty.sessionMetrics(text(given, "session_id")).getTotals());
        case "usage" -> usage(godoty);
        case "export" -> export(godoty, given);
        case "upload" -> upload(godoty, given);
        default -> throw new IllegalArgumentException("unknown command");
      };
    }
  }

  private static Map<String, Object> converse(Godoty godoty, JsonObject given) {
    ConverseRequest.Builder request =
        ConverseRequest.newBuilder()
            .setSessionId(text(given, "session_id"))
            .setText(text(given, "text"))
            .setAgent(text(given, "agent"))
            .addAllActionResults(ConformanceTools.answersOf(given));
    if (given.has("max_cost_usd")) {
      request.getLimitsBuilder().setMaxCostUsd(text(given, "max_cost_usd"));
    }
    if (given.has("continue")) {
      request.setOnDisconnect(OnDisconnect.ON_DISCONNECT_CONTINUE);
    }
    TurnBuilder builder = godoty.turn(request.build());
    ConformanceTools.apply(builder, given);
    if (given.has("timeout_ms")) {
      builder.deadline(Duration.ofMillis(given.get("timeout_ms").getAsLong()));
    }
    String leaveAt = text(given, "leave_at");
    try (Turn turn = builder.build()) {
      if (given.has("reactive")) {
        new Subscriber(turn, leaveAt).await();
      } else {
        for (TurnEvent event : turn) {
          show(event);
          if (isLeft(turn, leaveAt)) {
            break;
          }
        }
      }
      return described(turn);
    }
  }

  private static boolean isLeft(Turn turn, String leaveAt) {
    return !leaveAt.isEmpty() && turn.text().contains(leaveAt);
  }

  private static Map<String, Object> described(Turn turn) {
    Map<String, Object> done = new LinkedHashMap<>();
    done.put("turn_id", turn.id());
    done.put("session_id", turn.sessionId());
    done.put("request_id", turn.requestId());
    done.put("text", turn.text());
    done.put("reconnects", turn.reconnects());
    done.put("cost_usd", turn.costUsd().map(Conformance::plain).orElse(null));
    done.put("actions", ConformanceTools.actionsOf(turn));
    done.put("stop_reason", turn.finished().map(end -> end.getStopReason().name()).orElse(null));
    turn.finished().ifPresent(end -> done.put("totals", totalsOf(end.getTurnTotals())));
    return done;
  }

  private static void show(TurnEvent event) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("sequence", event.getSequence());
    line.put("event", event.getEventCase().name().toLowerCase(Locale.ROOT));
    switch (event.getEventCase()) {
      case HEARTBEAT, EVENT_NOT_SET -> {
        return;
      }
      case TEXT_DELTA -> line.put("text", event.getTextDelta().getText());
      case TOOL_CALL_STARTED -> line.put("name", event.getToolCallStarted().getName());
      case MODEL_CALL_FINISHED ->
          line.put("cost_usd", event.getModelCallFinished().getCall().getCostUsd());
      default -> {}
    }
    print(line);
  }

  private static Map<String, Object> usage(Godoty godoty) {
    GetUsageRequest request =
        GetUsageRequest.newBuilder()
            .setStartTime(fromNow(Duration.ofDays(-1)))
            .setEndTime(fromNow(Duration.ofHours(1)))
            .addGroupBy(UsageGroup.USAGE_GROUP_MODEL)
            .build();
    List<Object> rows = new ArrayList<>();
    for (UsageRow row : godoty.usage(request)) {
      rows.add(Map.of("model", row.getKeys(0).getModel(), "totals", totalsOf(row.getTotals())));
    }
    return Map.of("rows", rows);
  }

  private static Map<String, Object> export(Godoty godoty, JsonObject given) {
    ExportLedgerRequest request =
        ExportLedgerRequest.newBuilder().setCursor(text(given, "cursor")).build();
    int stopAfter = given.has("stop_after") ? given.get("stop_after").getAsInt() : -1;
    List<String> entries = new ArrayList<>();
    try (LedgerExport found = godoty.exportLedger(request)) {
      for (LedgerEntry entry : found) {
        entries.add(entry.getCall().getCallId());
        if (entries.size() == stopAfter) {
          break;
        }
      }
      long asOf = found.asOf().map(Instant::toEpochMilli).orElse(0L);
      return Map.of("entries", entries, "cursor", found.cursor(), "as_of", asOf);
    }
  }

  private static Map<String, Object> upload(Godoty godoty, JsonObject given) {
    Attachment stored =
        given.has("path")
            ? godoty.uploadAttachment(Path.of(text(given, "path")))
            : godoty.uploadAttachment(Base64.getDecoder().decode(text(given, "data")));
    return Map.of(
        "attachment_id", stored.getAttachmentId(),
        "media_type", stored.getMediaType(),
        "size_bytes", stored.getSizeBytes());
  }

  private static String plain(BigDecimal amount) {
    return amount.stripTrailingZeros().toPlainString();
  }

  private static Timestamp fromNow(Duration duration) {
    return Timestamp.newBuilder().setSeconds(Instant.now().plus(duration).getEpochSecond()).build();
  }

  private static Map<String, Object> totalsOf(Totals totals) {
    Map<String, Object> found = new LinkedHashMap<>();
    found.put("cost_usd", Godoty.costUsd(totals).map(Conformance::plain).orElse(null));
    found.put("turns", totals.getTurns());
    found.put("model_calls", totals.getModelCalls());
    found.put("input_tokens", totals.getUsage().getInputTokens());
    found.put("output_tokens", totals.getUsage().getOutputTokens());
    return found;
  }

  private static Map<String, Object> described(RuntimeException error) {
    if (!(error instanceof GodotyException failure)) {
      return Map.of("text", error.toString());
    }
    Map<String, Object> found = new LinkedHashMap<>();
    found.put("text", failure.getMessage());
    found.put("code", failure.getStatus().getCode().value());
    found.put("reason", failure.reason());
    found.put("quotas", failure.quotas());
    found.put("metadata", failure.metadata());
    found.put("request_id", failure.requestId());
    found.put("retry_delay", failure.retryDelay().orElse(Duration.ZERO).toMillis() / 1000.0);
    return found;
  }

  static String text(JsonObject given, String name) {
    return given.has(name) ? given.get(name).getAsString() : "";
  }

  static void print(Map<String, ?> line) {
    System.out.println(JSON.toJson(line));
  }

  /** Reads a turn as a reactive stream, two events at a time. */
  private static final class Subscriber implements Flow.Subscriber<TurnEvent> {
    private final CompletableFuture<Void> end = new CompletableFuture<>();
    private final Turn turn;
    private final String leaveAt;
    private Flow.Subscription subscription;
    private int open;

    Subscriber(Turn turn, String leaveAt) {
      this.turn = turn;
      this.leaveAt = leaveAt;
      turn.publisher().subscribe(this);
    }

    void await() {
      try {
        end.join();
      } catch (CompletionException error) {
        throw (RuntimeException) error.getCause();
      }
    }

    @Override
    public void onSubscribe(Flow.Subscription given) {
      subscription = given;
      more();
    }

    @Override
    public void onNext(TurnEvent event) {
      show(event);
      if (isLeft(turn, leaveAt)) {
        subscription.cancel();
        end.complete(null);
      } else if (--open == 0) {
        more();
      }
    }

    @Override
    public void onError(Throwable error) {
      end.completeExceptionally(error);
    }

    @Override
    public void onComplete() {
      end.complete(null);
    }

    private void more() {
      open = 2;
      subscription.request(2);
    }
  }
}
