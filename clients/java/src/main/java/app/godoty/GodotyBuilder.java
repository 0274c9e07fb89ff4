package app.godoty;

import com.google.gson.Gson;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.regex.Pattern;

/** The options of a client. */
public final class GodotyBuilder {
  private static final Pattern LOOPBACK = Pattern.compile("(localhost|127(\\.\\d{1,3}){3}|\\[::1\\]):\\d+");
  private static final Pattern SENDABLE = Pattern.compile("[!-~]+");
  private static final Duration MAXIMUM_GRACE = Duration.ofMinutes(10);

  String apiKey = setting("GODOTY_API_KEY");
  Duration timeout = Duration.ofSeconds(30);
  Duration disconnectGrace = Duration.ofSeconds(30);
  private String target = setting("GODOTY_LISTEN");
  private ChannelCredentials credentials;
  private Consumer<ManagedChannelBuilder<?>> customizer = channel -> {};

  GodotyBuilder() {}

  /** Sets the server, "host:port"; by default it is GODOTY_LISTEN. */
  public GodotyBuilder target(String target) {
    this.target = Objects.requireNonNull(target);
    return this;
  }

  /** Sets the API key; by default it is GODOTY_API_KEY. */
  public GodotyBuilder apiKey(String apiKey) {
    this.apiKey = Objects.requireNonNull(apiKey);
    return this;
  }

  /**
   * Connects by TLS, also to this machine. By default TLS is used to all other machines, and to this one if GODOTY_TLS_CA
   * names a PEM file of authorities, which are then the trusted ones.
   */
  public GodotyBuilder tls(ChannelCredentials credentials) {
    this.credentials = Objects.requireNonNull(credentials);
    return this;
  }

  /** Connects without TLS. Anyone between here and the server can then read the API key. */
  public GodotyBuilder plaintext() {
    return tls(InsecureChannelCredentials.create());
  }

  /** Sets the deadline of calls without one that return one response; by default it is 30 seconds. */
  public GodotyBuilder timeout(Duration timeout) {
    if (timeout.isNegative() || timeout.isZero()) {
      throw new IllegalArgumentException("the timeout must be positive");
    }
    this.timeout = timeout;
    return this;
  }

  /**
   * Sets how long a turn runs on while the connection is lost, and how long the client tries to resume it: at most 10
   * minutes, by default 30 seconds.
   */
  public GodotyBuilder disconnectGrace(Duration grace) {
    if (grace.isNegative() || grace.compareTo(MAXIMUM_GRACE) > 0) {
      throw new IllegalArgumentException("the disconnect grace must be from 0 to 10 minutes");
    }
    this.disconnectGrace = grace;
    return this;
  }

  /** Changes the channel before it is built. */
  public GodotyBuilder channel(Consumer<ManagedChannelBuilder<?>> customizer) {
    this.customizer = Objects.requireNonNull(customizer);
    return this;
  }

  /** Returns a client with these options. */
  public Godoty build() {
    if (target.isEmpty()) {
      throw new IllegalStateException("no server: set GODOTY_LISTEN, or use target");
    }
    if (!SENDABLE.matcher(apiKey).matches()) {
      throw new IllegalStateException(
          "the API key is empty or has characters that no key has: set GODOTY_API_KEY, or use apiKey");
    }
    ManagedChannelBuilder<?> channel =
        Grpc.newChannelBuilder(target, credentials == null ? defaultCredentials() : credentials)
            .defaultServiceConfig(serviceConfig())
            .keepAliveTime(20, TimeUnit.SECONDS) // servers allow a ping every 10 seconds
            .keepAliveTimeout(10, TimeUnit.SECONDS);
    customizer.accept(channel);
    return new Godoty(this, channel.build());
  }

  private ChannelCredentials defaultCredentials() {
    String authorities = setting("GODOTY_TLS_CA");
    if (!authorities.isEmpty()) {
      try {
        return TlsChannelCredentials.newBuilder().trustManager(new File(authorities)).build();
      } catch (IOException error) {
        throw new UncheckedIOException("GODOTY_TLS_CA", error);
      }
    }
    return LOOPBACK.matcher(target).matches()
        ? InsecureChannelCredentials.create()
        : TlsChannelCredentials.create();
  }

  /** Returns the generated config (make docs), which lets gRPC retry the methods without side effects. */
  @SuppressWarnings("unchecked")
  private static Map<String, ?> serviceConfig() {
    try (InputStreamReader text =
        new InputStreamReader(
            GodotyBuilder.class.getResourceAsStream("service_config.json"), StandardCharsets.UTF_8)) {
      return new Gson().fromJson(text, Map.class);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static String setting(String variable) {
    return System.getenv().getOrDefault(variable, "");
  }
}
