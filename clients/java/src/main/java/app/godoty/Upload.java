package app.godoty;

import app.godoty.v1.Attachment;
import app.godoty.v1.UploadAttachmentRequest;
import app.godoty.v1.UploadAttachmentResponse;
import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/** The upload of an attachment: a piece is read once the call takes it. */
final class Upload implements ClientResponseObserver<UploadAttachmentRequest, UploadAttachmentResponse> {
  private static final int PIECE = 256 * 1024; // bytes of one message

  private final InputStream content;
  private final CompletableFuture<Attachment> stored = new CompletableFuture<>();
  private ClientCallStreamObserver<UploadAttachmentRequest> call;
  private boolean complete;

  Upload(InputStream content) {
    this.content = content;
  }

  /** Waits for the end of the call. */
  Attachment await() {
    try {
      return stored.get();
    } catch (InterruptedException interrupted) {
      call.cancel("interrupted", interrupted);
      Thread.currentThread().interrupt();
      throw GodotyException.of(Status.CANCELLED.withDescription("interrupted"));
    } catch (ExecutionException error) {
      if (error.getCause() instanceof StatusRuntimeException failure) {
        throw GodotyException.of(failure);
      }
      throw (RuntimeException) error.getCause();
    }
  }

  @Override
  public void beforeStart(ClientCallStreamObserver<UploadAttachmentRequest> given) {
    call = given;
    call.setOnReadyHandler(this::send);
  }

  private void send() {
    try {
      while (!complete && call.isReady()) {
        byte[] piece = content.readNBytes(PIECE);
        complete = piece.length == 0;
        if (complete) {
          call.onCompleted();
        } else {
          call.onNext(UploadAttachmentRequest.newBuilder().setData(ByteString.copyFrom(piece)).build());
        }
      }
    } catch (IOException error) {
      complete = true;
      stored.completeExceptionally(new UncheckedIOException(error));
      call.cancel("the content cannot be read", error);
    }
  }

  @Override
  public void onNext(UploadAttachmentResponse response) {
    stored.complete(response.getAttachment());
  }

  @Override
  public void onError(Throwable error) {
    stored.completeExceptionally(error);
  }

  @Override
  public void onCompleted() {} // after the response
}
