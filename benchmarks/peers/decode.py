"""Decode clips with OpenCV or decord; runs in the peers' environment, which has nothing of this package.

    benchmarks/peers/.venv/bin/python benchmarks/peers/decode.py opencv < jobs

Each line of the standard input is a JSON list of `{"path": ..., "indices": [...]}`; the answer to a line is the
processor time of decoding all of them, in seconds.
"""

import json
import sys
import time


def decode_opencv(path, indices):
    """Seek to the first frame, grab, and convert the wanted ones to BGR."""
    import cv2

    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    video.set(cv2.CAP_PROP_POS_FRAMES, indices[0])
    frames = []
    for index in range(indices[0], indices[-1] + 1):
        video.grab()
        if index in indices:
            frames.append(video.retrieve()[1])
    video.release()
    return frames


def decode_decord(path, indices):
    """Read the wanted frames as RGB."""
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def main():
    """Answer line by line."""
    decode = {"opencv": decode_opencv, "decord": decode_decord}[sys.argv[1]]
    if sys.argv[1] == "opencv":
        import cv2

        cv2.setNumThreads(1)
    for line in sys.stdin:
        jobs = json.loads(line)
        started = time.process_time()
        for job in jobs:
            frames = decode(job["path"], job["indices"])
            assert len(frames) == len(job["indices"])
        print(time.process_time() - started, flush=True)


if __name__ == "__main__":
    main()
