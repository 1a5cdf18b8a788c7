// A job worker for Camunda 8's REST API that holds no secret: tokend streams it each credential
// before the one before it expires, and is told what the API refuses.
//
// usage: worker PROFILE [JOBS]    without JOBS: ten a second, until SIGTERM
//
// The stubs: buf generate ../../proto
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	pb "tokend.example/worker/tokendv1"
)

const name = "errand-go"

// What is told at the end. Failed: for want of a credential; Repeated: because the API was not
// there.
var count struct {
	Jobs         int   `json:"jobs"`
	Calls        int   `json:"calls"`
	Rejected     int   `json:"rejected"`
	Failed       int   `json:"failed"`
	Repeated     int   `json:"repeated"`
	CredentialMS int64 `json:"credential_ms"`
	GapMS        int64 `json:"gap_ms"`
}

// --- The credential ------------------------------------------------------------------------------------------------------

// A watch holds the latest credential of a profile.
type watch struct {
	tokend  pb.CredentialServiceClient
	profile string
	lock    sync.Mutex
	current *pb.Credential
	changed chan struct{} // closed when there is another
	why     string
}

// follow never ends: a stream that ends, as with a restart of tokend, is opened again.
func (w *watch) follow() {
	for ; ; time.Sleep(100 * time.Millisecond) {
		stream, err := w.tokend.WatchToken(context.Background(), &pb.WatchTokenRequest{Profile: w.profile}, grpc.WaitForReady(true))
		for err == nil {
			var event *pb.WatchTokenResponse
			if event, err = stream.Recv(); err != nil {
				break
			}
			w.lock.Lock()
			if credential := event.GetCredential(); credential != nil {
				w.current = credential
				close(w.changed)
				w.changed = make(chan struct{})
			} else {
				w.why = event.GetUnavailable().GetMessage()
			}
			w.lock.Unlock()
		}
		w.lock.Lock()
		w.why = err.Error()
		w.lock.Unlock()
	}
}

func usable(credential *pb.Credential) bool {
	return credential != nil && (credential.ExpiresAt == nil || credential.ExpiresAt.AsTime().After(time.Now()))
}

// credential is the latest one that has not expired and is not the refused one; it waits ten
// seconds for that.
func (w *watch) credential(refused *pb.Credential) (*pb.Credential, error) {
	late := time.After(10 * time.Second)
	for {
		w.lock.Lock()
		current, changed, why := w.current, w.changed, w.why
		w.lock.Unlock()
		if usable(current) && (refused == nil || current.Fingerprint != refused.Fingerprint) {
			return current, nil
		}
		select {
		case <-changed:
		case <-late:
			return nil, fmt.Errorf("%s: no credential within ten seconds: %s", w.profile, why)
		}
	}
}

// after reports a refusal until another credential has come.
func (w *watch) after(refused *pb.Credential) (*pb.Credential, error) {
	within, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go func() {
		for within.Err() == nil {
			answer, err := w.tokend.ReportRejected(within, &pb.ReportRejectedRequest{Profile: w.profile, Fingerprint: refused.Fingerprint})
			if err == nil && answer.Replaced {
				return
			}
			select {
			case <-within.Done():
			case <-time.After(max(answer.GetRetryAfter().AsDuration(), 100*time.Millisecond)):
			}
		}
	}()
	return w.credential(refused)
}

// --- The API -------------------------------------------------------------------------------------------------------------

var errNoCredential = errors.New("no credential")

type api struct {
	credentials *watch
	http        http.Client
}

func (a *api) send(given *pb.Credential, method, path, media string, body []byte) (int, []byte, error) {
	request, err := http.NewRequest(method, given.Target+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", media)
	if given.Authorization != "" {
		request.Header.Set("Authorization", given.Authorization)
	}
	answer, err := a.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	return answer.StatusCode, content, err
}

// once sends it with the credential there is, and once more with another if that one is refused.
func (a *api) once(method, path, media string, body []byte) (int, []byte, error) {
	asked := time.Now()
	given, err := a.credentials.credential(nil)
	waited := time.Since(asked)
	defer func() { count.CredentialMS = max(count.CredentialMS, waited.Milliseconds()) }()
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errNoCredential, err)
	}
	status, content, err := a.send(given, method, path, media, body)
	if err == nil && status == http.StatusUnauthorized {
		count.Rejected++
		asked = time.Now()
		given, err = a.credentials.after(given)
		waited += time.Since(asked)
		if err != nil {
			return 0, nil, fmt.Errorf("%w: %w", errNoCredential, err)
		}
		status, content, err = a.send(given, method, path, media, body)
	}
	if status == http.StatusUnauthorized {
		err = fmt.Errorf("%w: %s %s: %d", errNoCredential, method, path, status)
	}
	return status, content, err
}

// call returns the status and the body, once the API has one to give.
func (a *api) call(method, path, media string, body []byte) (int, []byte) {
	for ; ; time.Sleep(200 * time.Millisecond) {
		count.Calls++
		status, content, err := a.once(method, path, media, body)
		switch {
		case errors.Is(err, errNoCredential):
			count.Failed++
			fmt.Fprintln(os.Stderr, err)
		case err != nil || status >= 500 || status == http.StatusTooManyRequests:
			count.Repeated++
		default:
			return status, content
		}
	}
}

func (a *api) expect(statuses []int, method, path, media string, body []byte) []byte {
	status, content := a.call(method, path, media, body)
	if !slices.Contains(statuses, status) {
		fmt.Fprintf(os.Stderr, "%s %s: %d: %s\n", method, path, status, content)
		os.Exit(1)
	}
	return content
}

func (a *api) post(path string, message, answer any, statuses ...int) {
	body, _ := json.Marshal(message)
	content := a.expect(statuses, http.MethodPost, path, "application/json", body)
	if answer != nil {
		if err := json.Unmarshal(content, answer); err != nil {
			panic(err)
		}
	}
}

// --- The work ------------------------------------------------------------------------------------------------------------

func (a *api) deploy(process string) {
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	part, _ := writer.CreateFormFile("resources", name+".bpmn")
	io.WriteString(part, process)
	writer.Close()
	a.expect([]int{200}, http.MethodPost, "/v2/deployments", writer.FormDataContentType(), form.Bytes())
}

// work completes the jobs that are there, or come within five seconds.
func (a *api) work(started map[int64]bool) {
	var activated struct {
		Jobs []struct {
			Key                int64
			ProcessInstanceKey int64
		}
	}
	wanted := map[string]any{"type": name, "worker": name, "maxJobsToActivate": 10, "timeout": 10_000, "requestTimeout": 5_000}
	a.post("/v2/jobs/activation", wanted, &activated, 200)
	for _, job := range activated.Jobs {
		// 404: it was completed by a call whose answer was lost.
		a.post(fmt.Sprintf("/v2/jobs/%d/completion", job.Key), map[string]any{"variables": map[string]any{"done": true}}, nil, 204, 404)
		delete(started, job.ProcessInstanceKey)
		count.Jobs++
	}
}

func environment(key, otherwise string) string {
	if value := os.Getenv(key); value != "" {
		return value
	}
	return otherwise
}

func main() {
	jobs := 0
	if len(os.Args) > 2 {
		jobs, _ = strconv.Atoi(os.Args[2])
	}
	process, err := os.ReadFile(environment("ERRAND", "examples/errand.bpmn"))
	if err != nil {
		panic(err)
	}
	channel, err := grpc.NewClient("unix:"+environment("TOKEND_SOCKET", "/run/tokend/tokend.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}}))
	if err != nil {
		panic(err)
	}
	credentials := &watch{tokend: pb.NewCredentialServiceClient(channel), profile: os.Args[1], changed: make(chan struct{})}
	go credentials.follow()
	camunda := &api{credentials: credentials, http: http.Client{Timeout: 15 * time.Second}}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	camunda.expect([]int{200}, http.MethodGet, "/v2/topology", "application/json", nil)
	camunda.deploy(strings.ReplaceAll(string(process), "errand", name))
	started := map[int64]bool{}
	pace := time.NewTicker(100 * time.Millisecond)
	last := time.Now()
	for ended.Err() == nil && (jobs == 0 || count.Jobs < jobs) {
		if jobs == 0 {
			<-pace.C
		}
		var instance struct{ ProcessInstanceKey int64 }
		camunda.post("/v2/process-instances", map[string]any{"processDefinitionId": name}, &instance, 200)
		started[instance.ProcessInstanceKey] = true
		camunda.work(started)
		count.GapMS = max(count.GapMS, time.Since(last).Milliseconds())
		last = time.Now()
	}
	// Nothing that was started stays undone.
	for len(started) > 0 {
		camunda.work(started)
	}
	json.NewEncoder(os.Stdout).Encode(count)
}
