// grpc-go with generated stubs, and go-jose to verify what tokend handed out.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "tokend.example/interop/tokendv1"
)

var (
	socket      = os.Getenv("TOKEND_SOCKET")
	plain       = os.Getenv("IDP_HTTP")
	secure      = os.Getenv("IDP_HTTPS")
	exitCode    = 0
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
)

func check(name string, body func() error) {
	if err := body(); err != nil {
		exitCode = 1
		fmt.Printf("FAIL grpc-go: %s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	fmt.Printf("ok grpc-go: %s\n", name)
}

func dial(target string) *grpc.ClientConn {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	return connection
}

// get fetches JSON from the provider, whose https certificate only the file ca.pem makes
// trustworthy.
func get(url string, into any) error {
	pem, err := os.ReadFile(os.Getenv("WORK") + "/ca.pem")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return json.NewDecoder(answer.Body).Decode(into)
}

func verify(token, issuer, audience string) error {
	var metadata struct {
		Keys string `json:"jwks_uri"`
	}
	var keys jose.JSONWebKeySet
	if err := get(issuer+"/.well-known/openid-configuration", &metadata); err != nil {
		return err
	}
	if err := get(metadata.Keys, &keys); err != nil {
		return err
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil {
		return err
	}
	var claims jwt.Claims
	if err := parsed.Claims(keys, &claims); err != nil {
		return err
	}
	return claims.Validate(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{audience}, Time: time.Now()})
}

func tokens(client pb.CredentialServiceClient) {
	for _, c := range []struct{ profile, issuer, audience string }{
		{"basic", plain, "urn:api:orders"},
		{"post", plain, "urn:api:billing"},
		{"signed", plain, "urn:api:billing"},
		{"colon", plain, "urn:api:orders"},
		{"private-ca", secure, "urn:api:orders"},
	} {
		check(c.profile+": the token verifies against the provider's keys", func() error {
			answer, err := client.GetToken(ctx, &pb.GetTokenRequest{Profile: c.profile})
			if err != nil {
				return err
			}
			credential := answer.GetCredential()
			left := answer.GetExpiresIn().AsDuration()
			if credential.GetAuthorization() != "Bearer "+credential.GetToken() || left <= 0 || left > 10*time.Minute {
				return fmt.Errorf("odd answer, expires in %s", left)
			}
			return verify(credential.GetToken(), c.issuer, c.audience)
		})
	}
}

// refused expects a status with its ErrorInfo.
func refused(err error, code codes.Code, reason string) error {
	is := status.Convert(err)
	if is.Code() != code {
		return fmt.Errorf("%s instead of %s: %w", is.Code(), code, err)
	}
	for _, detail := range is.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "tokend" && info.GetReason() == reason {
			return nil
		}
	}
	return fmt.Errorf("no ErrorInfo with %s: %v", reason, is.Details())
}

func main() {
	defer func() { cancel(); os.Exit(exitCode) }()
	for _, form := range []string{"unix:", "unix://"} {
		check("target "+form+"/path", func() error {
			connection := dial(form + socket)
			defer connection.Close()
			_, err := pb.NewCredentialServiceClient(connection).GetToken(ctx, &pb.GetTokenRequest{Profile: "fixed"})
			return err
		})
	}
	connection := dial("unix://" + socket)
	defer connection.Close()
	client := pb.NewCredentialServiceClient(connection)
	tokens(client)
	check("ListProfiles", func() error {
		answer, err := client.ListProfiles(ctx, &pb.ListProfilesRequest{})
		if err != nil {
			return err
		}
		var names []string
		for _, profile := range answer.GetProfiles() {
			names = append(names, profile.GetName())
		}
		if !slices.Contains(names, "basic") || slices.Contains(names, "hidden") {
			return fmt.Errorf("%v", names)
		}
		return nil
	})
	check("an unknown profile: NOT_FOUND with details", func() error {
		_, err := client.GetToken(ctx, &pb.GetTokenRequest{Profile: "nowhere"})
		return refused(err, codes.NotFound, "PROFILE_NOT_FOUND")
	})
	check("no trust in the provider: UNAVAILABLE with details", func() error {
		_, err := client.GetToken(ctx, &pb.GetTokenRequest{Profile: "untrusted"})
		return refused(err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	})
	check("a provider that never answers: DEADLINE_EXCEEDED", func() error {
		short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
		defer stop()
		_, err := client.GetToken(short, &pb.GetTokenRequest{Profile: "stuck"})
		if status.Code(err) != codes.DeadlineExceeded {
			return fmt.Errorf("not that: %w", err)
		}
		return nil
	})
	check("health", func() error {
		answer, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "basic"})
		if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			err = errors.New(answer.GetStatus().String())
		}
		return err
	})
	check("WatchToken: the present credential at once", func() error {
		stream, err := client.WatchToken(ctx, &pb.WatchTokenRequest{Profile: "basic"})
		if err != nil {
			return err
		}
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		return verify(event.GetCredential().GetToken(), plain, "urn:api:orders")
	})
}
