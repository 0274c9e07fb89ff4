package app.godoty;

import app.godoty.v1.CancelTurnRequest;
import app.godoty.v1.ConverseRequest;
import app.godoty.v1.ConverseResponse;
import app.godoty.v1.OnDisconnect;
import app.godoty.v1.ResumeTurnRequest;
import app.godoty.v1.ResumeTurnResponse;
import app.godoty.v1.TurnEvent;
import app.godoty.v1.TurnFinished;
import io.grpc.Context;
import io.grpc.Context.CancellableContext;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Flow;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;

/**
 * A turn of a conversation: its events, as an iterator or as a reactive stream, and what is known of it.
 *
 * <p>If the connection is lost, the turn runs on, and its stream is resumed after the last event that arrived: no event comes
 * twice, and none is missing. If the turn is closed before its end, it is cancelled, unless its request says
 * ON_DISCONNECT_CONTINUE: use try-with-resources. A heartbeat may occur at any time; an event that this version does not know
 * has the case EVENT_NOT_SET: skip it. The events can be read once, by one thread; {@link #close} may be called by any.
 */
public final class Turn implements Iterable<TurnEvent>, AutoCloseable {
  /** The time in which a turn that is left must be cancelled. */
  private static final Duration LEAVE = Duration.ofSeconds(5);

  private final Godoty client;
  private final ConverseRequest request;
  private final Duration deadline;
  private final Retries retries;
  private final Events events = new Events();
  private final ReentrantLock reading = new ReentrantLock();
  private final CountDownLatch left = new CountDownLatch(1);
  private final StringBuffer text = new StringBuffer();

  private Iterator<TurnEvent> stream; // null: none is open; guarded by `reading`
  private volatile CancellableContext context; // of the stream
  private Future<?> timer;
  private boolean begun;
  private boolean failed; // the server has ended the turn with an error
  private boolean closed;
  private volatile boolean expired;
  private volatile String id = "";
  private volatile String sessionId;
  private volatile TurnFinished finished;
  private volatile int reconnects;
  private long sequence;

  Turn(Godoty client, ConverseRequest request, Duration deadline) {
    ConverseRequest.Builder complete = request.toBuilder();
    if (request.getRequestId().isEmpty()) {
      complete.setRequestId(UUID.randomUUID().toString());
    }
    if (!request.hasDisconnectGrace()) {
      Duration grace = client.disconnectGrace();
      complete.getDisconnectGraceBuilder().setSeconds(grace.getSeconds()).setNanos(grace.getNano());
    }
    this.client = client;
    this.request = complete.build();
    this.deadline = deadline;
    this.sessionId = request.getSessionId();
    this.retries =
        new Retries(
            Duration.ofSeconds(
                complete.getDisconnectGrace().getSeconds(), complete.getDisconnectGrace().getNanos()));
  }

  /** Returns the iterator of the events, which throws a {@link GodotyException} if the turn ends with an error. */
  @Override
  public Iterator<TurnEvent> iterator() {
    return events;
  }

  /** Returns the events as a reactive stream, for one subscriber. Its cancellation closes the turn. */
  public Flow.Publisher<TurnEvent> publisher() {
    return new TurnPublisher(this, client.readers());
  }

  /** Reads the turn to its end. */
  public TurnFinished await() {
    events.forEachRemaining(event -> {});
    return finished;
  }

  /** Returns the id of the turn. Empty: no event has arrived. */
  public String id() {
    return id;
  }

  /** Returns the session of the turn. Empty: the turn has not begun, and its request named none. */
  public String sessionId() {
    return sessionId;
  }

  /** Returns the request id of the turn. */
  public String requestId() {
    return request.getRequestId();
  }

  /** Returns the text of the answer so far. */
  public String text() {
    return text.toString();
  }

  /** Returns the turn's end, with its stop reason and totals. Empty: it has not ended, or ended with an error. */
  public Optional<TurnFinished> finished() {
    return Optional.ofNullable(finished);
  }

  /** Returns the cost of the turn in US dollars, exactly. Empty: it is not known. */
  public Optional<BigDecimal> costUsd() {
    return finished().flatMap(end -> Godoty.costUsd(end.getTurnTotals()));
  }

  /** Returns how often the stream was opened anew. */
  public int reconnects() {
    return reconnects;
  }

  /** Leaves the turn: if it has not ended, it is cancelled, in at most 5 seconds. */
  @Override
  public void close() {
    left.countDown();
    boolean interrupted = Thread.interrupted(); // the turn is cancelled all the same
    try {
      stopReading();
      reading.lock();
      try {
        if (!closed) {
          closed = true;
          leave();
        }
      } finally {
        reading.unlock();
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  /** Ends the stream at once, or within 5 seconds if the id of its turn is still to come. */
  private void stopReading() {
    CancellableContext open = context;
    if (open != null && !reading.isHeldByCurrentThread()) {
      Runnable cancel = () -> open.cancel(null);
      if (!id.isEmpty()) {
        cancel.run();
      } else if (!client.timers().isShutdown()) {
        client.timers().schedule(cancel, LEAVE.toMillis(), TimeUnit.MILLISECONDS);
      }
    }
  }

  private void leave() {
    boolean ongoing = begun && finished == null && !failed;
    closeStream();
    if (timer != null) {
      timer.cancel(false);
    }
    if (!ongoing || id.isEmpty() || request.getOnDisconnect() == OnDisconnect.ON_DISCONNECT_CONTINUE) {
      return;
    }
    try {
      client
          .agents()
          .withWaitForReady()
          .withDeadlineAfter(LEAVE.toMillis(), TimeUnit.MILLISECONDS)
          .cancelTurn(CancelTurnRequest.newBuilder().setTurnId(id).build());
    } catch (StatusRuntimeException lost) {
      // The server cancels the turn after its disconnect grace.
    }
  }

  /** Returns the next event; null at the end. */
  private TurnEvent read() {
    reading.lock();
    try {
      while (finished == null) {
        checkLeft();
        try {
          if (stream == null) {
            open();
          }
          if (!stream.hasNext()) {
            throw Status.UNAVAILABLE.withDescription("the stream ended before its turn").asRuntimeException();
          }
          TurnEvent event = stream.next();
          boolean isNew = accept(event);
          checkLeft();
          if (isNew) {
            return event;
          }
        } catch (StatusRuntimeException error) {
          lost(GodotyException.of(error));
        }
      }
      close();
      return null;
    } catch (RuntimeException error) {
      close();
      throw error;
    } finally {
      reading.unlock();
    }
  }

  private void open() {
    // The caller's context must not end a stream by which the id of its turn is still to come.
    context = Context.current().fork().withCancellation();
    if (!begun && deadline != null) {
      timer = client.timers().schedule(this::expire, deadline.toNanos(), TimeUnit.NANOSECONDS);
    }
    begun = true;
    Context previous = context.attach();
    try {
      stream =
          id.isEmpty()
              ? map(client.agents().converse(request), ConverseResponse::getEvent)
              : map(client.agents().resumeTurn(rest()), ResumeTurnResponse::getEvent);
    } finally {
      context.detach(previous);
    }
  }

  private ResumeTurnRequest rest() {
    return ResumeTurnRequest.newBuilder().setTurnId(id).setAfterSequence(sequence).build();
  }

  private void expire() {
    expired = true;
    left.countDown();
    stopReading();
  }

  /** Records an event; returns false for one that the caller has seen. */
  private boolean accept(TurnEvent event) {
    retries.reset();
    if (id.isEmpty()) {
      id = event.getTurnId();
    }
    if (event.hasHeartbeat()) {
      return true;
    }
    if (event.getSequence() <= sequence) {
      return false;
    }
    sequence = event.getSequence();
    switch (event.getEventCase()) {
      case TURN_STARTED -> sessionId = event.getTurnStarted().getSessionId();
      case TEXT_DELTA -> text.append(event.getTextDelta().getText());
      case TURN_FINISHED -> finished = event.getTurnFinished();
      default -> {}
    }
    return true;
  }

  /** Waits until the stream can be opened anew, or throws the error with which the turn ended. */
  private void lost(GodotyException error) {
    checkLeft();
    closeStream();
    failed = !error.reason().isEmpty() && !error.isLostConnection();
    if (!error.isLostConnection() || Thread.currentThread().isInterrupted()) {
      throw error;
    }
    try {
      if (!retries.await(!id.isEmpty(), error.retryDelay().orElse(Duration.ZERO), left)) {
        throw error;
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw error;
    }
    reconnects++;
    client.resetBackoff();
  }

  private void checkLeft() {
    if (finished == null && left.getCount() == 0) {
      throw GodotyException.of(
          expired
              ? Status.DEADLINE_EXCEEDED.withDescription("the turn's deadline has passed")
              : Status.CANCELLED.withDescription("the turn was left"));
    }
  }

  private void closeStream() {
    if (context != null) {
      context.cancel(null);
    }
    context = null;
    stream = null;
  }

  private static <T> Iterator<TurnEvent> map(Iterator<T> responses, Function<T, TurnEvent> eventOf) {
    return new Iterator<>() {
      @Override
      public boolean hasNext() {
        return responses.hasNext();
      }

      @Override
      public TurnEvent next() {
        return eventOf.apply(responses.next());
      }
    };
  }

  private final class Events implements Iterator<TurnEvent> {
    private TurnEvent next;

    @Override
    public boolean hasNext() {
      if (next == null) {
        next = read();
      }
      return next != null;
    }

    @Override
    public TurnEvent next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      TurnEvent event = next;
      next = null;
      return event;
    }
  }
}
