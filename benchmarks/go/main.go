// Command scenarios runs one benchmark scenario with Go's own goroutines and channels.
//
//	scenarios NAME N
//
// prints one line of JSON, as the Python rivals do (see common.py).
//
//	scenarios client NAME PORT N
//
// is the client of a network scenario.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// result is what a scenario reports: how many operations, and what else was measured.
type result struct {
	operations int
	clock      clock
	extra      map[string]any
}

// clock measures the wall and processor time between start and stop.
type clock struct {
	started    time.Time
	startedCPU time.Duration
	wall, cpu  time.Duration
}

func start() clock {
	return clock{started: time.Now(), startedCPU: cpuTime()}
}

func (c clock) stop() clock {
	c.wall, c.cpu = time.Since(c.started), cpuTime()-c.startedCPU
	return c
}

// cpuTime is the processor time this process has used, in all its threads.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// memory is the resident set and the page tables of this process, in bytes.
func memory() (resident, tables int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kilobytes, _ := strconv.Atoi(fields[1])
		switch fields[0] {
		case "VmRSS:":
			resident = kilobytes * 1024
		case "VmPTE:":
			tables = kilobytes * 1024
		}
	}
	return resident, tables
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "client" {
		port, err := strconv.Atoi(os.Args[3])
		check(err)
		n, err := strconv.Atoi(os.Args[4])
		check(err)
		client(os.Args[2], port, n)
		return
	}
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: scenarios NAME N")
		os.Exit(2)
	}
	scenario, known := scenarios[os.Args[1]]
	n, err := strconv.Atoi(os.Args[2])
	if !known || err != nil {
		fmt.Fprintln(os.Stderr, "no such scenario, or not a number:", os.Args[1:])
		os.Exit(2)
	}
	done := scenario(n)
	report := map[string]any{
		"operations":  done.operations,
		"seconds":     done.clock.wall.Seconds(),
		"cpu_seconds": done.clock.cpu.Seconds(),
	}
	for key, value := range done.extra {
		report[key] = value
	}
	line, err := json.Marshal(report)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}
