package main

// The echo server, and the client that all rivals' servers are loaded with.

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// serve has an echo server, and sends it the client of the scenario.
func serve(scenario string, n int) result {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() {
		for {
			connection, err := listener.Accept()
			check(err)
			go echo(connection)
		}
	}()
	return visit(scenario, listener.Addr().(*net.TCPAddr).Port, n)
}

func echo(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, 65_536)
	for {
		size, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:size]); err != nil {
			return
		}
	}
}

// visit is common.py's.
func visit(scenario string, port, n int) result {
	command := exec.Command(os.Args[0], "client", scenario, strconv.Itoa(port), strconv.Itoa(n))
	command.Env = append(os.Environ(), "GOMAXPROCS=1")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	check(err)
	output, err := command.StdoutPipe()
	check(err)
	resident, tables := memory()
	clock := start()
	check(command.Start())
	var said struct {
		Operations int     `json:"operations"`
		Seconds    float64 `json:"seconds"`
	}
	check(json.NewDecoder(output).Decode(&said))
	residentThen, tablesThen := memory()
	check(input.Close())
	check(command.Wait())
	clock = clock.stop()
	clock.wall = time.Duration(said.Seconds * float64(time.Second))
	if scenario != "idle" {
		return result{said.Operations, clock, nil}
	}
	return result{n, clock, map[string]any{
		"resident_bytes":   residentThen - resident,
		"page_table_bytes": tablesThen - tables,
	}}
}

// client makes the connections that a scenario asks for, sends its messages, says how long that took, and
// keeps the connections until its input ends.
func client(scenario string, port, n int) {
	connections, size := n, 1
	if scenario != "idle" {
		_, err := fmt.Sscanf(scenario, "echo_%dx%d", &connections, &size)
		check(err)
	}
	started := time.Now()
	all := make([]*exchange, connections)
	for k := range all {
		all[k] = dial(port, size)
		// The server has made what it needs for the connection once it has answered.
		all[k].roundTrip()
	}
	if scenario != "idle" {
		started = time.Now()
		echoes(all, n)
	}
	line, err := json.Marshal(map[string]any{"operations": n, "seconds": time.Since(started).Seconds()})
	check(err)
	fmt.Println(string(line))
	_, err = io.Copy(io.Discard, os.Stdin)
	check(err)
}

// echoes sends n messages, one at a time on each connection.
func echoes(all []*exchange, n int) {
	var left atomic.Int64
	left.Store(int64(n))
	var running sync.WaitGroup
	for _, exchange := range all {
		running.Add(1)
		go func() {
			defer running.Done()
			for left.Add(-1) >= 0 {
				exchange.roundTrip()
			}
		}()
	}
	running.Wait()
}

// exchange is one connection with what is sent and received on it.
type exchange struct {
	connection net.Conn
	out, in    []byte
}

func dial(port, size int) *exchange {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	check(err)
	out := make([]byte, size)
	out[0], out[size-1] = 1, 2
	return &exchange{connection, out, make([]byte, size)}
}

func (e *exchange) roundTrip() {
	_, err := e.connection.Write(e.out)
	check(err)
	_, err = io.ReadFull(e.connection, e.in)
	check(err)
	if size := len(e.in); e.in[0] != e.out[0] || e.in[size-1] != e.out[size-1] {
		panic("that is not what was sent")
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
