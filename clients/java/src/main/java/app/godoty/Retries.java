package app.godoty;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** When a lost stream is opened anew. */
final class Retries {
  private static final long FIRST_DELAY = Duration.ofMillis(100).toNanos();
  private static final long LONGEST_DELAY = Duration.ofSeconds(2).toNanos();

  /** A turn of which nothing was heard is tried for about two seconds: its server may not exist. */
  private static final int ATTEMPTS_TO_BEGIN = 6;

  private final long window; // from the loss of a stream that has begun
  private int attempt; // since the last message
  private long lost; // when the first of them began

  Retries(Duration window) {
    this.window = window.toNanos();
  }

  /** Is called with each message: the connection works. */
  void reset() {
    attempt = 0;
  }

  /** Waits until a stream that ended with an error can be opened anew; returns false if it is not to be. */
  boolean again(GodotyException error, boolean begun, Leaving leaving) {
    if (!error.isLostConnection() || Thread.currentThread().isInterrupted()) {
      return false;
    }
    try {
      return await(begun, error.retryDelay().orElse(Duration.ZERO), leaving);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  /** Waits until the next attempt; returns false if there is none. The first one is made at once. */
  private boolean await(boolean begun, Duration retryDelay, Leaving leaving) throws InterruptedException {
    long delay = retryDelay.toNanos();
    if (attempt == 0) {
      lost = System.nanoTime();
    } else {
      long backoff = Math.min(FIRST_DELAY << Math.min(attempt - 1, 10), LONGEST_DELAY);
      delay = Math.max(delay, backoff / 2 + ThreadLocalRandom.current().nextLong(backoff / 2));
    }
    attempt++;
    boolean late = System.nanoTime() - lost + delay >= window;
    if (begun ? late : attempt >= ATTEMPTS_TO_BEGIN) {
      return false;
    }
    leaving.await(delay);
    return true;
  }
}
