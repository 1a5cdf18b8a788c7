import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import sun.misc.Signal;
import tokend.v1.Credential;
import tokend.v1.GetTokenRequest;
import tokend.v1.ReportRejectedRequest;
import tokend.v1.CredentialServiceGrpc;
import tokend.v1.CredentialServiceGrpc.CredentialServiceBlockingStub;

/**
 * A job worker for Camunda 8's REST API that holds no secret: it asks tokend before each call, and reports what the API refuses.
 *
 * <p>usage: java -cp … Worker PROFILE [JOBS]; without JOBS: ten a second, until SIGTERM
 */
class Worker {
    static final String NAME = "errand-java";
    static final String JSON = "application/json";

    final Gson gson = new Gson();
    final HttpClient http = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(5)).build();
    final CredentialServiceBlockingStub tokend;
    final String profile;
    final Set<Long> started = new HashSet<>();
    /** What is told at the end. failed: for want of a credential; repeated: because the API was not there. */
    final Map<String, Long> count = new LinkedHashMap<>();
    volatile boolean ended;

    Worker(String socket, String profile) {
        var channel = Grpc.newChannelBuilder("unix://" + socket, InsecureChannelCredentials.create()).build();
        this.tokend = CredentialServiceGrpc.newBlockingStub(channel).withWaitForReady();
        this.profile = profile;
        List.of("jobs", "calls", "rejected", "failed", "repeated", "credential_ms", "gap_ms").forEach((key) -> count.put(key, 0L));
    }

    static class NoCredential extends Exception {
        NoCredential(String why) {
            super(why);
        }
    }

    static long now() {
        return System.nanoTime() / 1_000_000;
    }

    static String environment(String key, String otherwise) {
        return System.getenv().getOrDefault(key, otherwise);
    }

    // --- The credential ----------------------------------------------------------------------------------------------------

    CredentialServiceBlockingStub soon() {
        return tokend.withDeadlineAfter(10, TimeUnit.SECONDS);
    }

    Credential credential() {
        return soon().getToken(GetTokenRequest.newBuilder().setProfile(profile).build()).getCredential();
    }

    /** Another one than the one that was refused, as soon as there is one. */
    Credential credentialAfter(Credential refused) throws NoCredential, InterruptedException {
        var report = ReportRejectedRequest.newBuilder().setProfile(profile).setFingerprint(refused.getFingerprint()).build();
        for (long end = now() + 10_000; now() < end; ) {
            var answer = soon().reportRejected(report);
            if (answer.getReplaced()) {
                return credential();
            }
            var after = answer.getRetryAfter();
            Thread.sleep(Math.min(1000, Math.max(100, after.getSeconds() * 1000 + after.getNanos() / 1_000_000)));
        }
        throw new NoCredential(profile + ": refused, and no other credential within ten seconds");
    }

    // --- The API -----------------------------------------------------------------------------------------------------------

    HttpResponse<String> send(Credential given, String method, String path, String media, String body) throws IOException, InterruptedException {
        var request = HttpRequest.newBuilder(URI.create(given.getTarget() + path)).timeout(Duration.ofSeconds(15)).header("Content-Type", media)
                .method(method, body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(body));
        if (!given.getAuthorization().isEmpty()) {
            request.header("Authorization", given.getAuthorization());
        }
        return http.send(request.build(), BodyHandlers.ofString());
    }

    /** The answer, once the API has one to give. */
    HttpResponse<String> call(String method, String path, String media, String body) throws InterruptedException {
        for (; ; Thread.sleep(200)) {
            count.merge("calls", 1L, Long::sum);
            try {
                long asked = now();
                var given = credential();
                long waited = now() - asked;
                var answer = send(given, method, path, media, body);
                if (answer.statusCode() == 401) {
                    count.merge("rejected", 1L, Long::sum);
                    asked = now();
                    given = credentialAfter(given);
                    waited += now() - asked;
                    answer = send(given, method, path, media, body);
                }
                count.merge("credential_ms", waited, Math::max);
                if (answer.statusCode() == 401) {
                    throw new NoCredential(method + " " + path + ": " + answer.statusCode());
                }
                if (answer.statusCode() < 500 && answer.statusCode() != 429) {
                    return answer;
                }
                count.merge("repeated", 1L, Long::sum);
            } catch (StatusRuntimeException | NoCredential error) {
                count.merge("failed", 1L, Long::sum);
                System.err.println("no credential: " + error.getMessage());
            } catch (IOException error) {
                count.merge("repeated", 1L, Long::sum);
            }
        }
    }

    JsonObject expect(Set<Integer> statuses, String method, String path, String media, String body) throws InterruptedException {
        var answer = call(method, path, media, body);
        if (!statuses.contains(answer.statusCode())) {
            throw new IllegalStateException(method + " " + path + ": " + answer.statusCode() + ": " + answer.body());
        }
        return answer.statusCode() == 200 ? JsonParser.parseString(answer.body()).getAsJsonObject() : null;
    }

    JsonObject post(String path, Object message, Integer... statuses) throws InterruptedException {
        return expect(Set.of(statuses), "POST", path, JSON, gson.toJson(message));
    }

    // --- The work ----------------------------------------------------------------------------------------------------------

    /** One file as multipart/form-data. */
    void deploy(String process) throws InterruptedException {
        var head = "--part\r\nContent-Disposition: form-data; name=\"resources\"; filename=\"" + NAME + ".bpmn\"\r\n\r\n";
        expect(Set.of(200), "POST", "/v2/deployments", "multipart/form-data; boundary=part", head + process + "\r\n--part--\r\n");
    }

    /** Completes the jobs that are there, or come within five seconds. */
    void work() throws InterruptedException {
        var wanted = Map.of("type", NAME, "worker", NAME, "maxJobsToActivate", 10, "timeout", 10_000, "requestTimeout", 5_000);
        for (var job : post("/v2/jobs/activation", wanted, 200).getAsJsonArray("jobs")) {
            var key = job.getAsJsonObject().get("key").getAsLong();
            // 404: it was completed by a call whose answer was lost.
            post("/v2/jobs/" + key + "/completion", Map.of("variables", Map.of("done", true)), 204, 404);
            started.remove(job.getAsJsonObject().get("processInstanceKey").getAsLong());
            count.merge("jobs", 1L, Long::sum);
        }
    }

    void run(String process, long jobs) throws InterruptedException {
        expect(Set.of(200), "GET", "/v2/topology", JSON, null);
        deploy(process);
        long last = now();
        for (long next = last; !ended && (jobs == 0 || count.get("jobs") < jobs); last = now()) {
            if (jobs == 0) {
                next = Math.max(next + 100, now() - 1000);
                Thread.sleep(Math.max(0, next - now()));
            }
            started.add(post("/v2/process-instances", Map.of("processDefinitionId", NAME), 200).get("processInstanceKey").getAsLong());
            work();
            count.merge("gap_ms", now() - last, Math::max);
        }
        // Nothing that was started stays undone.
        while (!started.isEmpty()) {
            work();
        }
        System.out.println(gson.toJson(count));
    }

    public static void main(String[] arguments) throws Exception {
        var worker = new Worker(environment("TOKEND_SOCKET", "/run/tokend/tokend.sock"), arguments[0]);
        Signal.handle(new Signal("TERM"), (signal) -> worker.ended = true);
        var process = Files.readString(Path.of(environment("ERRAND", "examples/errand.bpmn"))).replace("errand", NAME);
        worker.run(process, arguments.length > 1 ? Long.parseLong(arguments[1]) : 0);
        System.exit(0);
    }
}
