// A service that says hello.
package main

import (
	"fmt"
	"net/http"
)

var version = "unknown"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", version)
	})
	if err := http.ListenAndServe(":8080", nil); err != nil {
		panic(err)
	}
}
