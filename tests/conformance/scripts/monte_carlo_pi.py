"""An example: pi by sampling, with an actor that tells the progress.

progress: 1.0
about pi: True
"""

import random
import time

import ray

ray.init(num_cpus=2)


@ray.remote
class ProgressActor:
    def __init__(self, total_num_samples):
        self.total_num_samples = total_num_samples
        self.num_samples_completed_per_task = {}

    def report_progress(self, task_id, num_samples_completed):
        self.num_samples_completed_per_task[task_id] = num_samples_completed

    def get_progress(self):
        return sum(self.num_samples_completed_per_task.values()) / self.total_num_samples


@ray.remote
def sampling_task(num_samples, task_id, progress_actor):
    num_inside = 0
    for i in range(num_samples):
        x, y = random.uniform(-1, 1), random.uniform(-1, 1)
        if x * x + y * y <= 1:
            num_inside += 1
        if (i + 1) % 10_000 == 0:
            progress_actor.report_progress.remote(task_id, i + 1)
    progress_actor.report_progress.remote(task_id, num_samples)
    return num_inside


NUM_SAMPLING_TASKS, NUM_SAMPLES_PER_TASK = 4, 50_000
TOTAL_NUM_SAMPLES = NUM_SAMPLING_TASKS * NUM_SAMPLES_PER_TASK
progress_actor = ProgressActor.options(num_cpus=0).remote(TOTAL_NUM_SAMPLES)
results = [
    sampling_task.remote(NUM_SAMPLES_PER_TASK, i, progress_actor) for i in range(NUM_SAMPLING_TASKS)
]
while True:
    progress = ray.get(progress_actor.get_progress.remote())
    if progress == 1:
        break
    time.sleep(0.05)
print("progress:", progress)
total_num_inside = sum(ray.get(results))
pi = (total_num_inside * 4) / TOTAL_NUM_SAMPLES
print("about pi:", 3.0 < pi < 3.3)
