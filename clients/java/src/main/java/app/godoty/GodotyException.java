package app.godoty;

import app.godoty.v1.ErrorReason;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;

/** A call failed. Stubs throw a {@link StatusRuntimeException}, of which {@link #of} makes one of these. */
public final class GodotyException extends StatusRuntimeException {
  private static final long serialVersionUID = 1;
  private static final String DOMAIN = "godoty.app";
  private static final String PREFIX = "ERROR_REASON_";

  /** Codes of networks and proxies: all errors of Godoty have a reason, and the client sets no deadline of a stream. */
  private static final Set<Code> OF_NETWORKS =
      EnumSet.of(Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED, Code.DEADLINE_EXCEEDED);

  /** Reasons that say nothing of the turn: the server cannot be used now. */
  private static final Set<String> OF_SERVERS = Set.of("SHUTTING_DOWN", "STORAGE_UNAVAILABLE");

  private String reason = "";
  private String requestId = "";
  private Duration retryDelay;
  private transient Map<String, String> metadata = Map.of();
  private transient Map<String, String> fieldViolations = Map.of();
  private transient List<String> quotas = List.of();

  private GodotyException(StatusRuntimeException error) {
    super(error.getStatus(), error.getTrailers());
    setStackTrace(error.getStackTrace()); // its cause is that of the status
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    if (status != null) {
      status.getDetailsList().forEach(this::add);
    }
  }

  /** Returns the error of a stub's call, with its details. */
  public static GodotyException of(StatusRuntimeException error) {
    return error instanceof GodotyException decoded ? decoded : new GodotyException(error);
  }

  static GodotyException of(Status status) {
    return of(status.asRuntimeException());
  }

  /** Returns what a call returns, or throws its error with the details. */
  public static <T> T decoding(Supplier<T> call) {
    try {
      return call.get();
    } catch (StatusRuntimeException error) {
      throw of(error);
    }
  }

  /** Returns the reason and the status. */
  @Override
  public String getMessage() {
    return reason == null || reason.isEmpty() ? super.getMessage() : reason + ": " + super.getMessage();
  }

  /**
   * Returns the name of an {@link ErrorReason} without its prefix, such as "SESSION_BUSY"; also one that this version does
   * not know. Empty: the error is gRPC's own, such as that of an unreachable server.
   */
  public String reason() {
    return reason;
  }

  /** Returns whether the error has a reason of the contract. */
  public boolean hasReason(ErrorReason expected) {
    return !reason.isEmpty() && expected.name().equals(PREFIX + reason);
  }

  /** Returns the time to wait before a retry. Empty: the server gave none. */
  public Optional<Duration> retryDelay() {
    return Optional.ofNullable(retryDelay);
  }

  /** Returns what errors.proto documents for the reason. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** Returns the invalid fields of the request, each with its constraint. */
  public Map<String, String> fieldViolations() {
    return fieldViolations;
  }

  /** Returns the limits that were reached, such as "budget/day". */
  public List<String> quotas() {
    return quotas;
  }

  /** Returns the name of the call in the server's log. */
  public String requestId() {
    return requestId;
  }

  /** Returns whether it says nothing of a turn: the connection broke, or the server cannot be used now. */
  boolean isLostConnection() {
    return reason.isEmpty() ? OF_NETWORKS.contains(getStatus().getCode()) : OF_SERVERS.contains(reason);
  }

  private void add(Any detail) {
    try {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        if (info.getDomain().equals(DOMAIN)) {
          reason = info.getReason();
          metadata = Map.copyOf(info.getMetadataMap());
        }
      } else if (detail.is(RetryInfo.class)) {
        com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
        retryDelay = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
      } else if (detail.is(RequestInfo.class)) {
        requestId = detail.unpack(RequestInfo.class).getRequestId();
      } else if (detail.is(BadRequest.class)) {
        fieldViolations = new LinkedHashMap<>();
        detail
            .unpack(BadRequest.class)
            .getFieldViolationsList()
            .forEach(each -> fieldViolations.put(each.getField(), each.getDescription()));
      } else if (detail.is(QuotaFailure.class)) {
        quotas =
            detail.unpack(QuotaFailure.class).getViolationsList().stream()
                .map(QuotaFailure.Violation::getSubject)
                .toList();
      }
    } catch (InvalidProtocolBufferException damaged) {
      addSuppressed(damaged); // the status is known all the same
    }
  }
}
