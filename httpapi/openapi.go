package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

// OpenAPI describes the API of a version of the program, as OpenAPI 3.1 and as 3.0.3.
func OpenAPI(version string) (v31, v30 []byte) {
	d := newAPI(Config{Version: version}).openapi
	return d.v31, d.v30
}

// description is the API in both versions of OpenAPI.
type description struct{ v31, v30 []byte }

func describe(h huma.API) description {
	d := h.OpenAPI()
	schemas := d.Components.Schemas.Map()
	delete(schemas, "ErrorModel") // huma's own, which ofHuma replaces
	delete(schemas, "ErrorDetail")
	nullable(schemas, "Member", "load", "Load")
	nullable(schemas, "Job", "owner", "JobOwner")
	delete(schemas, "Load") // of which nothing else is made
	v31, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("describe the API: %v", err)) // nothing of it comes from outside
	}
	v30, err := d.Downgrade()
	if err != nil {
		panic(fmt.Sprintf("describe the API in OpenAPI 3.0: %v", err))
	}
	return description{append(v31, '\n'), v30}
}

// nullable says of a property that it may be null, which huma says of no struct.
func nullable(schemas map[string]*huma.Schema, of, property, schema string) {
	s := *schemas[schema]
	s.Nullable = true
	schemas[of].Properties[property] = &s
}

func (d description) serve31(w http.ResponseWriter, _ *http.Request) { serveOpenAPI(w, d.v31) }
func (d description) serve30(w http.ResponseWriter, _ *http.Request) { serveOpenAPI(w, d.v30) }

func serveOpenAPI(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(b) // fails only if the client has gone
}

// humaConfig switches off what huma would load from elsewhere, add to answers or do twice.
func humaConfig(version string) huma.Config {
	c := huma.DefaultConfig("coordd", version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", "", nil
	c.RejectUnknownQueryParameters = true
	c.AllowAdditionalPropertiesByDefault = true // answers may come to say more
	format := huma.Format{Marshal: marshal, Unmarshal: json.Unmarshal}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format} // the latter for problem+json
	c.Transformers = []huma.Transformer{ofHuma}
	c.Info.Description = "Which servers are alive, what has changed, and what is wrong. Reading needs the role viewer and changing the role operator, unless the daemon serves its own host only and has no token file."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	c.Security = []map[string][]string{{"token": {}}, {}} // OpenAPI 3.0 knows no client certificates
	return c
}

// marshal writes an answer at once. That the client has gone is no error of the answer.
func marshal(w io.Writer, v any) error {
	var b bytes.Buffer
	if err := huma.DefaultJSONFormat.Marshal(&b, v); err != nil {
		return err
	}
	_, _ = w.Write(b.Bytes())
	return nil
}

// get is an operation that reads.
func get(id, path, summary string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Summary: summary,
		Responses: map[string]*huma.Response{"default": {
			Description: "A problem, as RFC 9457 has it",
			Content:     map[string]*huma.MediaType{problemType: {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}}},
		}},
	}
}

// post is an operation that changes something. Its body is there already, as [wholeBodies] has
// read it: a time to read it in would end the request.
func post(id, path, summary string) huma.Operation {
	o := get(id, path, summary)
	o.Method, o.BodyReadTimeout = http.MethodPost, -1
	return o
}

// waiting is an operation that takes its time: up to d, and what any other request may take.
func waiting(o huma.Operation, d time.Duration) huma.Operation {
	o.Middlewares = append(o.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		_, w := humachi.Unwrap(ctx)
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{}) // what cannot be set has its limits from the server
		_ = control.SetWriteDeadline(time.Now().Add(d + requestTimeout))
		next(ctx)
	})
	return o
}

// streaming is an operation that answers with Server-Sent Events.
func streaming(o huma.Operation) huma.Operation {
	o.Responses["200"] = &huma.Response{
		Description: "Server-Sent Events: `change` with an Event, its id the revision to resume from; `resync`, where events are missing, with a Problem, after which the stream ends and is resumed from its id; `problem`, after which it ends",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	return o
}

// problemSchema adds what no operation returns by itself.
func problemSchema(h huma.API) {
	h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
}
