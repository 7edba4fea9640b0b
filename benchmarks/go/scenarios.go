package main

// The scenarios, in the order of scenarios.py, which says what each of them does.

import (
	"math/rand"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bufferSize   = 128 // of the one channel of buffered
	producers    = 4   // of fanin
	fanInSize    = 16  // of each of its channels
	mutexWorkers = 100
	hogTime      = 50 * time.Millisecond
)

var scenarios = map[string]func(int) result{
	"spawn":    spawn,
	"pingpong": pingpong,
	"buffered": buffered,
	"fanin":    fanIn,
	"sieve":    sieve,
	"mutex":    mutex,
	"parked":   parked,
	"parked1m": parked,
	"timers":   timers,
	"yield":    yield,
	"hogs":     hogs,
	"offload":  offload,

	"echo_1x64":      serves("echo_1x64"),
	"echo_100x64":    serves("echo_100x64"),
	"echo_1x16384":   serves("echo_1x16384"),
	"echo_100x16384": serves("echo_100x16384"),
	"idle":           serves("idle"),
}

func serves(scenario string) func(int) result {
	return func(n int) result { return serve(scenario, n) }
}

func spawn(n int) result {
	var lock sync.Mutex
	var running sync.WaitGroup
	hits := 0
	clock := start()
	running.Add(n)
	for range n {
		go func() {
			lock.Lock()
			hits++
			lock.Unlock()
			running.Done()
		}()
	}
	running.Wait()
	return result{hits, clock.stop(), nil}
}

func pingpong(n int) result {
	there, back := make(chan int), make(chan int)
	clock := start()
	go func() {
		for range n {
			back <- <-there
		}
	}()
	for i := range n {
		there <- i
		<-back
	}
	return result{n, clock.stop(), nil}
}

func buffered(n int) result {
	values := make(chan int, bufferSize)
	clock := start()
	go func() {
		for i := range n {
			values <- i
		}
	}()
	for range n {
		<-values
	}
	return result{n, clock.stop(), nil}
}

func fanIn(n int) result {
	share := n / producers
	var from [producers]chan int
	clock := start()
	for k := range from {
		values := make(chan int, fanInSize)
		from[k] = values
		go func() {
			for i := range share {
				values <- i
			}
		}()
	}
	for range share * producers {
		select {
		case <-from[0]:
		case <-from[1]:
		case <-from[2]:
		case <-from[3]:
		}
	}
	return result{share * producers, clock.stop(), nil}
}

func sieve(n int) result {
	generate := func(numbers chan<- int) {
		for i := 2; ; i++ {
			numbers <- i
		}
	}
	keepIndivisible := func(source <-chan int, sink chan<- int, prime int) {
		for number := range source {
			if number%prime != 0 {
				sink <- number
			}
		}
	}
	clock := start()
	numbers := make(chan int)
	go generate(numbers)
	prime := 0
	for range n {
		prime = <-numbers
		rest := make(chan int)
		go keepIndivisible(numbers, rest, prime)
		numbers = rest
	}
	return result{1, clock.stop(), map[string]any{"last": prime}}
}

func mutex(n int) result {
	var lock sync.Mutex
	var running sync.WaitGroup
	held := 0
	clock := start()
	running.Add(mutexWorkers)
	for range mutexWorkers {
		go func() {
			for range n / mutexWorkers {
				lock.Lock()
				held++
				runtime.Gosched()
				lock.Unlock()
			}
			running.Done()
		}()
	}
	running.Wait()
	return result{held, clock.stop(), nil}
}

func parked(n int) result {
	wake := make(chan int)
	var started, done sync.WaitGroup
	runtime.GC()
	resident, tables := memory()
	clock := start()
	started.Add(n)
	done.Add(n)
	for range n {
		go func() {
			started.Done()
			<-wake
			done.Done()
		}()
	}
	started.Wait()
	startTime := time.Since(clock.started)
	residentParked, tablesParked := memory()
	waking := time.Now()
	for i := range n {
		wake <- i
	}
	done.Wait()
	return result{n, clock.stop(), map[string]any{
		"resident_bytes":   residentParked - resident,
		"page_table_bytes": tablesParked - tables,
		"start_seconds":    startTime.Seconds(),
		"wake_seconds":     time.Since(waking).Seconds(),
	}}
}

func timers(n int) result {
	random := rand.New(rand.NewSource(1))
	delays := make([]time.Duration, n)
	for i := range delays {
		delays[i] = time.Duration(random.Float64() * float64(time.Second))
	}
	delays[n-1] = time.Second
	var running sync.WaitGroup
	clock := start()
	running.Add(n)
	for _, delay := range delays {
		go func() {
			time.Sleep(delay)
			running.Done()
		}()
	}
	running.Wait()
	return result{n, clock.stop(), nil}
}

func yield(n int) result {
	var running sync.WaitGroup
	clock := start()
	running.Add(2)
	for range 2 {
		go func() {
			for range n / 2 {
				runtime.Gosched()
			}
			running.Done()
		}()
	}
	running.Wait()
	return result{n / 2 * 2, clock.stop(), nil}
}

// count computes without a pause.
func count(turns int) (sum int) {
	for i := range turns {
		sum += i ^ sum
	}
	return sum
}

// calibrate says how far count counts in that time on a processor of its own.
func calibrate(wanted time.Duration) int {
	turns, used := 1_000_000, time.Duration(0)
	for used < 20*time.Millisecond {
		turns *= 2
		started := cpuTime()
		count(turns)
		used = cpuTime() - started
	}
	return int(float64(turns) * wanted.Seconds() / used.Seconds())
}

func hogs(n int) result {
	turns := calibrate(hogTime)
	var left atomic.Int64
	left.Store(int64(n))
	clock := start()
	for range n {
		go func() {
			count(turns)
			left.Add(-1)
		}()
	}
	gap, last := time.Duration(0), time.Now()
	for left.Load() > 0 {
		runtime.Gosched()
		now := time.Now()
		gap, last = max(gap, now.Sub(last)), now
	}
	return result{n, clock.stop(), map[string]any{"gap_seconds": gap.Seconds()}}
}

// Go has no thread pool to hand a call to; its nearest is a goroutine and a channel for the result.
func offload(n int) result {
	clock := start()
	for range n {
		answer := make(chan struct{})
		go func() { answer <- struct{}{} }()
		<-answer
	}
	return result{n, clock.stop(), nil}
}
