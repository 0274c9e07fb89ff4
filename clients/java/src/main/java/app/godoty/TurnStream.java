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
import java.time.Duration;
import java.util.Iterator;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * The stream of one turn of the server, over as many connections as it takes. One thread at a time reads it or leaves it; any
 * may stop it, and see what is known of it.
 */
final class TurnStream {
  /** The time in which a turn that is left must be cancelled. */
  private static final Duration LEAVE = Duration.ofSeconds(5);

  private final Godoty client;
  private final ConverseRequest request;
  private final Leaving leaving;
  private final Retries retries;

  private Iterator<TurnEvent> stream; // null: none is open
  private volatile CancellableContext context; // of the stream
  private boolean begun;
  private boolean failed; // the server has ended the turn with an error
  private long sequence;
  private volatile String id = "";
  private volatile TurnFinished finished;
  private volatile int reconnects;

  TurnStream(Godoty client, ConverseRequest request, Leaving leaving) {
    this.client = client;
    this.request = request;
    this.leaving = leaving;
    this.retries =
        new Retries(
            Duration.ofSeconds(
                request.getDisconnectGrace().getSeconds(), request.getDisconnectGrace().getNanos()));
  }

  /** Returns the id of the turn. Empty: no event has arrived. */
  String id() {
    return id;
  }

  /** Returns the turn's end. Null: it has not ended. */
  TurnFinished finished() {
    return finished;
  }

  /** Returns how often the stream was opened anew. */
  int reconnects() {
    return reconnects;
  }

  /** Returns the next event that the caller has not seen; null after the turn's end. */
  TurnEvent next() {
    while (finished == null) {
      leaving.check();
      try {
        if (stream == null) {
          open();
        }
        if (!stream.hasNext()) {
          throw Status.UNAVAILABLE.withDescription("the stream ended before its turn").asRuntimeException();
        }
        TurnEvent event = stream.next();
        boolean isNew = accept(event);
        if (finished == null) {
          leaving.check();
        }
        if (isNew) {
          return event;
        }
      } catch (StatusRuntimeException error) {
        lost(GodotyException.of(error));
      }
    }
    return null;
  }

  /** Ends the stream at once, or within 5 seconds if the id of its turn is still to come. */
  void stop() {
    CancellableContext open = context;
    if (open == null) {
      return;
    }
    Runnable cancel = () -> open.cancel(null);
    if (!id.isEmpty()) {
      cancel.run();
    } else if (!client.timers().isShutdown()) {
      client.timers().schedule(cancel, LEAVE.toMillis(), TimeUnit.MILLISECONDS);
    }
  }

  /** Ends the stream: a turn that has not ended is cancelled, in at most 5 seconds. */
  void leave() {
    boolean ongoing = begun && finished == null && !failed;
    closeStream();
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

  private void open() {
    // The caller's context must not end a stream by which the id of its turn is still to come.
    context = Context.current().fork().withCancellation();
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
    if (event.hasTurnFinished()) {
      finished = event.getTurnFinished();
    }
    return true;
  }

  /** Waits until the stream can be opened anew, or throws the error with which the turn ended. */
  private void lost(GodotyException error) {
    leaving.check();
    closeStream();
    failed = !error.reason().isEmpty() && !error.isLostConnection();
    if (!retries.again(error, !id.isEmpty(), leaving)) {
      throw error;
    }
    reconnects++;
    client.resetBackoff();
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
}
