// Upstream's own types as an oracle: a line of JSON in names a kind and a body as JSON or protobuf; the line out says what
// Go makes of it. Tests compare it with what ours makes of it.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"
)

type question struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Text, so that malformed bodies can be asked about.
	JSON     *string `json:"json"`
	Protobuf []byte  `json:"protobuf"`
}

type answer struct {
	Unknown  bool            `json:"unknown,omitempty"`
	Error    string          `json:"error,omitempty"`
	Problems []string        `json:"problems,omitempty"`
	JSON     json.RawMessage `json:"json,omitempty"`
	Protobuf []byte          `json:"protobuf,omitempty"`
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for in.Scan() {
		var asked question
		if err := json.Unmarshal(in.Bytes(), &asked); err != nil {
			panic(err)
		}
		if err := out.Encode(tell(asked)); err != nil {
			panic(err)
		}
	}
}

func tell(asked question) answer {
	gv, err := schema.ParseGroupVersion(asked.APIVersion)
	if err != nil {
		return answer{Error: err.Error()}
	}
	object, err := scheme.Scheme.New(gv.WithKind(asked.Kind))
	if err != nil {
		return answer{Unknown: true}
	}
	binary := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	var told answer
	if asked.JSON != nil {
		problems, err := kjson.UnmarshalStrict([]byte(*asked.JSON), object)
		if err != nil {
			return answer{Error: err.Error()}
		}
		for _, problem := range problems {
			told.Problems = append(told.Problems, problem.Error())
		}
	} else if _, _, err := binary.Decode(asked.Protobuf, nil, object); err != nil {
		return answer{Error: err.Error()}
	}
	if told.JSON, err = json.Marshal(object); err != nil {
		return answer{Error: err.Error()}
	}
	var encoded bytes.Buffer
	// Not every kind has a protobuf form.
	if binary.Encode(object, &encoded) == nil {
		told.Protobuf = encoded.Bytes()
	}
	return told
}
