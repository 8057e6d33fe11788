#include "thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace avllm {

namespace {

struct Pool {
    std::mutex                           caller;  // held for a whole loop
    std::mutex                           mutex;
    std::condition_variable              wake;
    std::condition_variable              done;
    std::vector<std::thread>             threads;
    const std::function<void(int32_t)> * body = nullptr;
    std::atomic<int32_t>                 next{ 0 };
    int32_t                              n          = 0;
    int32_t                              helpers    = 0;  // threads wanted for this loop
    int32_t                              busy       = 0;
    uint64_t                             generation = 0;

    void work() {
        for (int32_t i; (i = next.fetch_add(1)) < n;) {
            (*body)(i);
        }
    }

    void run() {
        uint64_t                     seen = 0;
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            wake.wait(lock, [&] { return generation != seen; });
            seen = generation;
            if (helpers == 0) {
                continue;
            }
            helpers--;
            busy++;
            lock.unlock();
            work();
            lock.lock();
            if (--busy == 0) {
                done.notify_one();
            }
        }
    }
};

// Never destroyed: its threads may outlive static destruction, and a forked child cannot join them.
Pool & pool_of_this_process() {
    static Pool * pool  = nullptr;
    static pid_t  owner = 0;
    if (owner != getpid()) {
        pool  = new Pool;
        owner = getpid();
    }
    return *pool;
}

}  // namespace

void parallel_for(int32_t n, int32_t n_threads, const std::function<void(int32_t)> & body) {
    Pool &                       pool = pool_of_this_process();
    std::unique_lock<std::mutex> caller(pool.caller, std::try_to_lock);
    if (!caller.owns_lock()) {  // another engine of this process has the threads
        for (int32_t i = 0; i < n; i++) {
            body(i);
        }
        return;
    }
    const int32_t wanted = std::max(0, n_threads - 1);
    {
        std::lock_guard<std::mutex> lock(pool.mutex);
        while (static_cast<int32_t>(pool.threads.size()) < wanted) {
            pool.threads.emplace_back([&pool] { pool.run(); });
        }
        pool.body    = &body;
        pool.n       = n;
        pool.helpers = wanted;
        pool.next.store(0);
        pool.generation++;
    }
    pool.wake.notify_all();
    pool.work();
    std::unique_lock<std::mutex> lock(pool.mutex);
    pool.helpers = 0;  // a thread that wakes late must not touch a finished loop
    pool.done.wait(lock, [&] { return pool.busy == 0; });
}

}  // namespace avllm
