package app.godoty;

import app.godoty.v1.TurnEvent;
import java.util.Iterator;
import java.util.Objects;
import java.util.concurrent.Executor;
import java.util.concurrent.Flow;
import java.util.concurrent.atomic.AtomicBoolean;

/** A turn as a reactive stream: a thread reads each event once it is requested. */
final class TurnPublisher implements Flow.Publisher<TurnEvent> {
  private final Turn turn;
  private final Executor executor;
  private final AtomicBoolean subscribed = new AtomicBoolean();

  TurnPublisher(Turn turn, Executor executor) {
    this.turn = turn;
    this.executor = executor;
  }

  @Override
  public void subscribe(Flow.Subscriber<? super TurnEvent> subscriber) {
    Reader reader = new Reader(Objects.requireNonNull(subscriber));
    if (subscribed.compareAndSet(false, true)) {
      executor.execute(reader);
    } else {
      reader.reject();
    }
  }

  private final class Reader implements Flow.Subscription, Runnable {
    private final Flow.Subscriber<? super TurnEvent> subscriber;
    private long requested; // guarded by this, as all below
    private boolean cancelled;
    private IllegalArgumentException fault; // of the subscriber

    Reader(Flow.Subscriber<? super TurnEvent> subscriber) {
      this.subscriber = subscriber;
    }

    void reject() {
      cancelled = true;
      subscriber.onSubscribe(this);
      subscriber.onError(new IllegalStateException("a turn has one subscriber"));
    }

    @Override
    public synchronized void request(long count) {
      if (count <= 0) {
        fault = new IllegalArgumentException("the number of requested events must be positive");
      } else {
        requested = requested + count < 0 ? Long.MAX_VALUE : requested + count;
      }
      notifyAll();
    }

    @Override
    public void cancel() {
      synchronized (this) {
        if (cancelled) {
          return;
        }
        cancelled = true;
        notifyAll();
      }
      executor.execute(turn::close);
    }

    @Override
    public void run() {
      Iterator<TurnEvent> events = turn.iterator();
      try {
        subscriber.onSubscribe(this);
        while (awaitRequest()) {
          if (!events.hasNext()) {
            subscriber.onComplete();
            return;
          }
          if (isCancelled()) {
            return;
          }
          subscriber.onNext(events.next());
        }
      } catch (RuntimeException | InterruptedException error) {
        turn.close();
        if (!isCancelled()) {
          subscriber.onError(error);
        }
      }
    }

    /** Waits until an event is requested; returns false once the subscription is cancelled. */
    private synchronized boolean awaitRequest() throws InterruptedException {
      while (requested == 0 && !cancelled && fault == null) {
        wait();
      }
      if (fault != null && !cancelled) {
        throw fault;
      }
      requested--;
      return !cancelled;
    }

    private synchronized boolean isCancelled() {
      return cancelled;
    }
  }
}
