package app.godoty;

import app.godoty.v1.AdminServiceGrpc;
import app.godoty.v1.AdminServiceGrpc.AdminServiceBlockingStub;
import app.godoty.v1.AgentDefinitionServiceGrpc;
import app.godoty.v1.AgentDefinitionServiceGrpc.AgentDefinitionServiceBlockingStub;
import app.godoty.v1.AgentServiceGrpc;
import app.godoty.v1.AgentServiceGrpc.AgentServiceBlockingStub;
import app.godoty.v1.Attachment;
import app.godoty.v1.BillingServiceGrpc;
import app.godoty.v1.BillingServiceGrpc.BillingServiceBlockingStub;
import app.godoty.v1.ConverseRequest;
import app.godoty.v1.ExportLedgerRequest;
import app.godoty.v1.GetSessionMetricsRequest;
import app.godoty.v1.GetSessionMetricsResponse;
import app.godoty.v1.GetUsageRequest;
import app.godoty.v1.LedgerEntry;
import app.godoty.v1.ListLedgerEntriesRequest;
import app.godoty.v1.ListMessagesRequest;
import app.godoty.v1.ListSessionsRequest;
import app.godoty.v1.Message;
import app.godoty.v1.Session;
import app.godoty.v1.Totals;
import app.godoty.v1.UsageRow;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;

/**
 * The client of Godoty, a service that runs agents and accounts for every token. It connects with the first call, and is safe
 * for use by several threads.
 */
public final class Godoty implements AutoCloseable {
  private static final Duration UPLOAD_TIMEOUT = Duration.ofMinutes(2); // that of the server

  private static final ThreadFactory DAEMONS =
      task -> {
        Thread thread = new Thread(task, "godoty");
        thread.setDaemon(true);
        return thread;
      };

  private final ManagedChannel connection;
  private final Channel channel;
  private final Duration disconnectGrace;
  private final ExecutorService readers = Executors.newCachedThreadPool(DAEMONS);
  private final ScheduledExecutorService timers = Executors.newSingleThreadScheduledExecutor(DAEMONS);

  Godoty(GodotyBuilder builder, ManagedChannel connection) {
    this.connection = connection;
    this.channel =
        ClientInterceptors.intercept(
            connection, new BearerInterceptor(builder.apiKey), new DeadlineInterceptor(builder.timeout));
    this.disconnectGrace = builder.disconnectGrace;
  }

  /** Returns a client of the server GODOTY_LISTEN with the key GODOTY_API_KEY. */
  public static Godoty connect() {
    return builder().build();
  }

  /** Returns a builder with the defaults of {@link #connect}. */
  public static GodotyBuilder builder() {
    return new GodotyBuilder();
  }

  /**
   * Returns a turn, which begins when its events are read. A request without an id gets a random one, so that a retry never
   * charges twice, and one without a disconnect grace the client's.
   */
  public Turn converse(ConverseRequest request) {
    return turn(request).build();
  }

  /** Returns a turn that is cancelled when its deadline has passed. */
  public Turn converse(ConverseRequest request, Duration deadline) {
    return turn(request).deadline(deadline).build();
  }

  /** Returns a turn in a new session. */
  public Turn converse(String text) {
    return converse(ConverseRequest.newBuilder().setText(text).build());
  }

  /** Returns a builder of a turn, with the tools that the model may call here, and the answers to approvals. */
  public TurnBuilder turn(ConverseRequest request) {
    return new TurnBuilder(this, request);
  }

  /** Returns a builder of a turn in a new session. */
  public TurnBuilder turn(String text) {
    return turn(ConverseRequest.newBuilder().setText(text).build());
  }

  /** Returns the cost and usage of a session. */
  public GetSessionMetricsResponse sessionMetrics(String sessionId) {
    GetSessionMetricsRequest request =
        GetSessionMetricsRequest.newBuilder().setSessionId(sessionId).build();
    return GodotyException.decoding(() -> agents().getSessionMetrics(request));
  }

  /** Returns the rows of all pages of usage. It needs a key of the scope billing. */
  public Iterable<UsageRow> usage(GetUsageRequest request) {
    return new Pages<>(
        token -> billing().getUsage(request.toBuilder().setPageToken(token).build()),
        page -> page.getRowsList(),
        page -> page.getNextPageToken());
  }

  /** Returns the ledger's entries of all pages, oldest first. It needs a key of the scope billing. */
  public Iterable<LedgerEntry> ledgerEntries(ListLedgerEntriesRequest request) {
    return new Pages<>(
        token -> billing().listLedgerEntries(request.toBuilder().setPageToken(token).build()),
        page -> page.getEntriesList(),
        page -> page.getNextPageToken());
  }

  /**
   * Returns an export of all ledger entries of a time range, oldest first; with a cursor in the request, it goes on there. It
   * needs a key of the scope billing.
   */
  public LedgerExport exportLedger(ExportLedgerRequest request) {
    return new LedgerExport(this, request);
  }

  /** Stores an image or a PDF document for messages; it is deleted after a day unless a session names it. */
  public Attachment uploadAttachment(byte[] content) {
    return upload(new ByteArrayInputStream(content));
  }

  /** Stores an image or a PDF document for messages from a file; it is deleted after a day unless a session names it. */
  public Attachment uploadAttachment(Path file) {
    try (InputStream content = Files.newInputStream(file)) {
      return upload(content);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private Attachment upload(InputStream content) {
    Upload upload = new Upload(content);
    AgentServiceGrpc.newStub(channel)
        .withDeadlineAfter(UPLOAD_TIMEOUT.toMillis(), TimeUnit.MILLISECONDS)
        .uploadAttachment(upload);
    return upload.await();
  }

  /** Returns the tenant's sessions, most recently used first. */
  public Iterable<Session> sessions() {
    return new Pages<>(
        token -> agents().listSessions(ListSessionsRequest.newBuilder().setPageToken(token).build()),
        page -> page.getSessionsList(),
        page -> page.getNextPageToken());
  }

  /** Returns the messages of a session, oldest first. A list shows large ones cut: ReadMessage has all of them. */
  public Iterable<Message> messages(String sessionId) {
    ListMessagesRequest request = ListMessagesRequest.newBuilder().setSessionId(sessionId).build();
    return new Pages<>(
        token -> agents().listMessages(request.toBuilder().setPageToken(token).build()),
        page -> page.getMessagesList(),
        page -> page.getNextPageToken());
  }

  /** Returns the cost in US dollars, exactly. Empty: it is not known, or that of a call is not (yet); that is not 0. */
  public static Optional<BigDecimal> costUsd(Totals totals) {
    boolean known = totals.hasCostUsd() && totals.getPendingCalls() == 0 && totals.getUnresolvedCalls() == 0;
    return known ? Optional.of(new BigDecimal(totals.getCostUsd())) : Optional.empty();
  }

  /** Returns the methods of sessions and turns. A turn is best run by {@link #converse}. */
  public AgentServiceBlockingStub agents() {
    return AgentServiceGrpc.newBlockingStub(channel);
  }

  /** Returns the methods of the tenant's agents and MCP servers, for a key of the scope agents. */
  public AgentDefinitionServiceBlockingStub definitions() {
    return AgentDefinitionServiceGrpc.newBlockingStub(channel);
  }

  /** Returns the methods of the tenant's usage, for a key of the scope billing. */
  public BillingServiceBlockingStub billing() {
    return BillingServiceGrpc.newBlockingStub(channel);
  }

  /** Returns the methods of tenants and keys, for a key of the scope admin. */
  public AdminServiceBlockingStub admin() {
    return AdminServiceGrpc.newBlockingStub(channel);
  }

  /** Returns the channel of all calls, for other stubs: it sends the key, and sets the deadline of calls without one. */
  public Channel channel() {
    return channel;
  }

  /** Closes the connection. Close running turns first: the server runs them on for a while. */
  @Override
  public void close() {
    connection.shutdownNow();
    timers.shutdownNow();
    readers.shutdown();
  }

  Duration disconnectGrace() {
    return disconnectGrace;
  }

  ExecutorService readers() {
    return readers;
  }

  ScheduledExecutorService timers() {
    return timers;
  }

  /** Lets the next call connect at once. */
  void resetBackoff() {
    connection.resetConnectBackoff();
  }
}
