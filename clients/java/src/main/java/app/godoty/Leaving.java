package app.godoty;

import io.grpc.Status;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Whether a turn was left, by its caller or by its deadline. */
final class Leaving {
  private final CountDownLatch left = new CountDownLatch(1);
  private volatile boolean expired;

  /** Leaves the turn. */
  void leave() {
    left.countDown();
  }

  /** Leaves the turn, as its deadline has passed. */
  void expire() {
    expired = true;
    left.countDown();
  }

  /** Returns whether the turn was left. */
  boolean isLeft() {
    return left.getCount() == 0;
  }

  /** Waits until the turn is left, or for a time. */
  void await(long nanos) throws InterruptedException {
    left.await(nanos, TimeUnit.NANOSECONDS);
  }

  /** Throws an error if the turn was left. */
  void check() {
    if (isLeft()) {
      throw GodotyException.of(
          expired
              ? Status.DEADLINE_EXCEEDED.withDescription("the turn's deadline has passed")
              : Status.CANCELLED.withDescription("the turn was left"));
    }
  }
}
