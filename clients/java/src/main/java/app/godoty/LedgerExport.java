package app.godoty;

import app.godoty.v1.ExportLedgerRequest;
import app.godoty.v1.ExportLedgerResponse;
import app.godoty.v1.LedgerEntry;
import io.grpc.Context;
import io.grpc.Context.CancellableContext;
import io.grpc.StatusRuntimeException;
import java.time.Instant;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Optional;

/**
 * An export of the ledger: its entries, oldest first, which can be read once, by one thread. If the connection is lost, it goes
 * on after the last entries that arrived: no entry comes twice, and none is missing. Close it if it is not read to its end: use
 * try-with-resources.
 */
public final class LedgerExport implements Iterable<LedgerEntry>, AutoCloseable {
  private final Godoty client;
  private final ExportLedgerRequest request;
  private final Retries retries;
  private final Leaving leaving = new Leaving();
  private final Entries entries = new Entries();

  private CancellableContext context; // of the stream
  private Iterator<ExportLedgerResponse> stream; // null: none is open
  private String cursor;
  private Instant asOf;

  LedgerExport(Godoty client, ExportLedgerRequest request) {
    this.client = client;
    this.request = request;
    this.retries = new Retries(client.disconnectGrace());
    this.cursor = request.getCursor();
  }

  /** Returns the iterator of the entries, which throws a {@link GodotyException} if the export fails. */
  @Override
  public Iterator<LedgerEntry> iterator() {
    return entries;
  }

  /**
   * Returns the position from which a later export of the same range goes on, on any server: after the entries of the last
   * response that was read whole. Empty: the beginning.
   */
  public String cursor() {
    return cursor;
  }

  /** Returns the time by which the export's entries were inserted. Empty: no response has arrived. */
  public Optional<Instant> asOf() {
    return Optional.ofNullable(asOf);
  }

  /** Ends the export. */
  @Override
  public void close() {
    leaving.leave();
    closeStream();
  }

  /** Returns the next response; null at the end. */
  private ExportLedgerResponse read() {
    while (true) {
      leaving.check();
      try {
        if (stream == null) {
          open();
        }
        if (!stream.hasNext()) {
          closeStream();
          return null;
        }
        ExportLedgerResponse response = stream.next();
        retries.reset();
        return response;
      } catch (StatusRuntimeException error) {
        closeStream();
        GodotyException decoded = GodotyException.of(error);
        if (!retries.again(decoded, !cursor.isEmpty(), leaving)) {
          throw decoded;
        }
        client.resetBackoff();
      }
    }
  }

  private void open() {
    context = Context.current().withCancellation();
    Context previous = context.attach();
    try {
      stream = client.billing().exportLedger(request.toBuilder().setCursor(cursor).build());
    } finally {
      context.detach(previous);
    }
  }

  private void closeStream() {
    if (context != null) {
      context.cancel(null);
    }
    context = null;
    stream = null;
  }

  private final class Entries implements Iterator<LedgerEntry> {
    private Iterator<LedgerEntry> items = List.<LedgerEntry>of().iterator(); // of the last response
    private String after = ""; // its cursor
    private boolean ended;

    @Override
    public boolean hasNext() {
      while (!items.hasNext() && !ended) {
        cursor = after.isEmpty() ? cursor : after;
        ExportLedgerResponse response = read();
        if (response == null) {
          ended = true;
        } else {
          if (response.hasAsOf()) {
            asOf = Instant.ofEpochSecond(response.getAsOf().getSeconds(), response.getAsOf().getNanos());
          }
          items = response.getEntriesList().iterator();
          after = response.getCursor();
        }
      }
      return items.hasNext();
    }

    @Override
    public LedgerEntry next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      return items.next();
    }
  }
}
