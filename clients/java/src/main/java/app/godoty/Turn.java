package app.godoty;

import app.godoty.v1.Action;
import app.godoty.v1.ActionResult;
import app.godoty.v1.ConverseRequest;
import app.godoty.v1.TurnEvent;
import app.godoty.v1.TurnFinished;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Flow;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Collectors;

/**
 * A turn of a conversation: its events, as an iterator or as a reactive stream, and what is known of it.
 *
 * <p>If the connection is lost, the turn runs on, and its stream is resumed after the last event that arrived: no event comes
 * twice, and none is missing. If the turn is closed before its end, it is cancelled, unless its request says
 * ON_DISCONNECT_CONTINUE: use try-with-resources. A heartbeat may occur at any time; an event that this version does not know
 * has the case EVENT_NOT_SET: skip it. The events can be read once, by one thread; {@link #close} may be called by any.
 *
 * <p>With {@link TurnBuilder#tool} or {@link TurnBuilder#approval}, a turn of the server that ends with
 * STOP_REASON_ACTION_REQUIRED is followed by another one, with the answers. All of them are one Turn: its events are those of
 * each in order, with a turn_started, a turn_finished and sequences of its own; text and cost are those of all together.
 */
public final class Turn implements Iterable<TurnEvent>, AutoCloseable {
  private final Godoty client;
  private final ConverseRequest request;
  private final Duration deadline;
  private final Leaving leaving;
  private final Answers answers;
  private final Events events = new Events();
  private final ReentrantLock reading = new ReentrantLock(); // of the stream
  private final StringBuffer text = new StringBuffer();

  private volatile TurnStream stream; // of the last turn of the server
  private volatile List<Action> asked = List.of(); // by that turn
  private volatile Optional<BigDecimal> cost = Optional.of(BigDecimal.ZERO); // of the turns before it
  private volatile int reconnects; // of the turns before it
  private volatile String sessionId;
  private Future<?> timer;
  private boolean closed;

  Turn(Godoty client, ConverseRequest request, Duration deadline, Leaving leaving, Answers answers) {
    ConverseRequest.Builder complete = request.toBuilder();
    if (request.getRequestId().isEmpty()) {
      complete.setRequestId(UUID.randomUUID().toString());
    }
    if (!request.hasDisconnectGrace()) {
      Duration grace = client.disconnectGrace();
      complete.getDisconnectGraceBuilder().setSeconds(grace.getSeconds()).setNanos(grace.getNano());
    }
    answers.declare(complete);
    this.client = client;
    this.request = complete.build();
    this.deadline = deadline;
    this.leaving = leaving;
    this.answers = answers;
    this.sessionId = request.getSessionId();
    this.stream = new TurnStream(client, this.request, leaving);
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
    return stream.finished();
  }

  /** Returns the id of the turn; of several, that of the last. Empty: no event has arrived. */
  public String id() {
    return stream.id();
  }

  /** Returns the session of the turn. Empty: the turn has not begun, and its request named none. */
  public String sessionId() {
    return sessionId;
  }

  /** Returns the request id of the turn; of several, that of the first. */
  public String requestId() {
    return request.getRequestId();
  }

  /** Returns the text of the answer so far. */
  public String text() {
    return text.toString();
  }

  /**
   * Returns the turn's end, with its stop reason and totals; of several, that of the last. Empty: it has not ended, or ended
   * with an error.
   */
  public Optional<TurnFinished> finished() {
    return Optional.ofNullable(stream.finished());
  }

  /**
   * Returns the cost of the turn in US dollars, exactly. Empty: it has not ended, or the cost of a call is not known.
   */
  public Optional<BigDecimal> costUsd() {
    return costWith(finished());
  }

  /**
   * Returns the actions for which the turn waits, with their inputs, once it has ended with STOP_REASON_ACTION_REQUIRED. Answer
   * them in another turn of the session, by its action_results ({@link ActionResults}), or by DecideAction.
   */
  public List<Action> actions() {
    Set<String> open =
        finished().stream()
            .flatMap(end -> end.getActionsList().stream())
            .map(Action::getActionId)
            .collect(Collectors.toSet());
    return asked.stream().filter(each -> open.contains(each.getActionId())).toList();
  }

  /** Returns how often a stream was opened anew. */
  public int reconnects() {
    return reconnects + stream.reconnects();
  }

  /** Leaves the turn: if it has not ended, it is cancelled, in at most 5 seconds. */
  @Override
  public void close() {
    leaving.leave();
    boolean interrupted = Thread.interrupted(); // the turn is cancelled all the same
    try {
      stopReading();
      reading.lock();
      try {
        if (!closed) {
          closed = true;
          stream.leave();
          if (timer != null) {
            timer.cancel(false);
          }
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

  private void stopReading() {
    answers.interrupt();
    stream.stop();
  }

  private void expire() {
    leaving.expire();
    stopReading();
  }

  /** Returns the next event; null at the end. */
  private TurnEvent read() {
    try {
      do {
        TurnEvent event = readStream();
        if (event != null) {
          return event;
        }
      } while (follow());
    } catch (RuntimeException error) {
      close();
      throw error;
    }
    close();
    return null;
  }

  private TurnEvent readStream() {
    reading.lock();
    try {
      if (timer == null && deadline != null) {
        timer = client.timers().schedule(this::expire, deadline.toNanos(), TimeUnit.NANOSECONDS);
      }
      TurnEvent event = stream.next();
      if (event != null) {
        record(event);
      }
      return event;
    } finally {
      reading.unlock();
    }
  }

  private void record(TurnEvent event) {
    switch (event.getEventCase()) {
      case TURN_STARTED -> sessionId = event.getTurnStarted().getSessionId();
      case TEXT_DELTA -> text.append(event.getTextDelta().getText());
      case ACTION_REQUIRED -> {
        List<Action> more = new ArrayList<>(asked);
        more.add(event.getActionRequired());
        asked = List.copyOf(more);
      }
      default -> {}
    }
  }

  /** Lets the turn with the answers to the actions follow; returns false if there is none. */
  private boolean follow() {
    List<ActionResult> results = answers.to(actions()); // while others may close the turn
    if (results.isEmpty()) {
      return false;
    }
    reading.lock();
    try {
      leaving.check();
      cost = costWith(finished());
      reconnects = reconnects();
      asked = List.of();
      stream = new TurnStream(client, requestWith(results), leaving);
      return true;
    } finally {
      reading.unlock();
    }
  }

  private Optional<BigDecimal> costWith(Optional<TurnFinished> end) {
    return end.flatMap(last -> Godoty.costUsd(last.getTurnTotals())).flatMap(last -> cost.map(last::add));
  }

  /** Returns the request with answers: the server has the rest of the first one. */
  private ConverseRequest requestWith(List<ActionResult> results) {
    return ConverseRequest.newBuilder()
        .setSessionId(sessionId)
        .setRequestId(UUID.randomUUID().toString())
        .addAllActionResults(results)
        .setUser(request.getUser())
        .setOnBusyValue(request.getOnBusyValue())
        .setOnDisconnectValue(request.getOnDisconnectValue())
        .setDisconnectGrace(request.getDisconnectGrace())
        .build();
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
