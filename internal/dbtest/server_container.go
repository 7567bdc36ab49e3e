package dbtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

const (
	pullWithin = 2 * time.Minute

	// containerLabel marks our containers: `docker ps --filter label=coordd.dbtest` shows any that outlived its tests.
	containerLabel = "coordd.dbtest"
)

// startContainer runs the product in a container. Readiness is the server's own answer, which, unlike a line of a log,
// has the same meaning for every image.
func startContainer(ctx context.Context, p *product) (_ source, err error) {
	if err := settleReaper(ctx); err != nil {
		return source{}, err
	}
	image, err := p.obtainImage(ctx)
	if err != nil {
		return source{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	password := rand.Text()
	env := map[string]string{}
	for _, name := range p.passwords {
		env[name] = password
	}
	container, err := testcontainers.Run(ctx, image,
		testcontainers.WithEnv(env),
		testcontainers.WithExposedPorts(p.port),
		testcontainers.WithCmd(p.tuning...),
		testcontainers.WithLabels(map[string]string{containerLabel: p.name}),
	)
	// Nobody will read its data, so it may die at once.
	end := func() error { return testcontainers.TerminateContainer(container, testcontainers.StopTimeout(0)) }
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("a container of %s: %w", image, err), end())
		}
	}()
	if err != nil {
		return source{}, err
	}
	address, err := container.PortEndpoint(ctx, p.port, "")
	if err != nil {
		return source{}, err
	}
	url := p.adminURL(password, address)
	err = awaitReady(ctx, func(ctx context.Context) error {
		if state, err := container.State(ctx); err != nil || !state.Running {
			return errors.Join(errEnded, err)
		}
		return ping(ctx, url)
	})
	if err != nil {
		return source{}, fmt.Errorf("%w; the end of its log:\n%s", err, containerLog(container))
	}
	return source{url: url, origin: "a container of " + image, close: end}, nil
}

// settleReaper switches testcontainers' reaper off where its image is not at hand: it only serves runs that are
// killed, as Main ends the containers of all others, and without the image no container would start.
// It must come before all else of testcontainers, which reads its configuration once.
func settleReaper(ctx context.Context) error {
	const variable = "TESTCONTAINERS_RYUK_DISABLED"
	if os.Getenv(variable) != "" {
		return nil
	}
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer docker.Close()
	//nolint:staticcheck // what replaces the name is internal to testcontainers
	if _, err := docker.ImageInspect(ctx, testcontainers.ReaperDefaultImage); err != nil {
		return os.Setenv(variable, "true")
	}
	return nil
}

// obtainImage makes sure that the engine has the image, and pulls it if need be.
func (p *product) obtainImage(ctx context.Context) (string, error) {
	image := cmp.Or(os.Getenv(p.imageVariable), p.image)
	ctx, cancel := context.WithTimeout(ctx, pullWithin)
	defer cancel()
	docker, err := testcontainers.NewDockerProvider()
	if err != nil {
		return "", fmt.Errorf("no engine answers: %w", err)
	}
	defer docker.Close()
	_, err = docker.Client().ImageInspect(ctx, image)
	if errdefs.IsNotFound(err) {
		err = docker.PullImage(ctx, image)
	}
	if err != nil {
		return "", fmt.Errorf("no image %s: %w; pull it, or make one by internal/dbtest/images/make and name it in %s",
			image, err, p.imageVariable)
	}
	return image, nil
}

func containerLog(container testcontainers.Container) string {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	stream, err := container.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer stream.Close()
	text, err := io.ReadAll(stream)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(text))
}
