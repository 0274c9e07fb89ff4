package app.godoty;

import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.function.Function;

/** The items of all pages of a list, which are fetched as needed; each iterator begins with the first page. */
final class Pages<P, T> implements Iterable<T> {
  private final Function<String, P> fetch;
  private final Function<P, List<T>> itemsOf;
  private final Function<P, String> nextTokenOf;

  Pages(Function<String, P> fetch, Function<P, List<T>> itemsOf, Function<P, String> nextTokenOf) {
    this.fetch = fetch;
    this.itemsOf = itemsOf;
    this.nextTokenOf = nextTokenOf;
  }

  @Override
  public Iterator<T> iterator() {
    return new Iterator<>() {
      private Iterator<T> items = List.<T>of().iterator();
      private String token = ""; // of the next page; null: there is none

      @Override
      public boolean hasNext() {
        while (!items.hasNext() && token != null) {
          P page = GodotyException.decoding(() -> fetch.apply(token));
          items = itemsOf.apply(page).iterator();
          token = nextTokenOf.apply(page).isEmpty() ? null : nextTokenOf.apply(page);
        }
        return items.hasNext();
      }

      @Override
      public T next() {
        if (!hasNext()) {
          throw new NoSuchElementException();
        }
        return items.next();
      }
    };
  }
}
