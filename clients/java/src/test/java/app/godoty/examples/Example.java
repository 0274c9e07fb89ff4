package app.godoty.examples;

import app.godoty.Godoty;
import io.grpc.StatusRuntimeException;
import java.util.function.Consumer;

/** What the examples share: the client they use, and how they report a failure. */
final class Example {
  private final String name;

  /** The name is what its messages about failures begin with. */
  Example(String name) {
    this.name = name;
  }

  /** Runs the example against the server at GODOTY_LISTEN. */
  void run(Consumer<Godoty> example) {
    try (Godoty godoty = Godoty.connect()) {
      example.accept(godoty);
    } catch (StatusRuntimeException | IllegalStateException error) {
      fail(error.getMessage());
    }
  }

  /** Ends the process with status 1. */
  void fail(String why) {
    System.err.println(name + ": " + why);
    System.exit(1);
  }
}
