"""The test sound, made and measured with numpy: the same frequencies and phases as page/tone.js, which explains it."""

import math

import numpy

PHASE_MS = 1000
RATE = 48000


def frequency_of(number: int) -> int:
    return 500 + 220 * number


def is_on_at(now_ms: float) -> bool:
    return int(now_ms // PHASE_MS) % 2 == 0


class Tone:
    """Samples of one sender's tone, continuous in phase, gated by the time at which each chunk will be played."""

    def __init__(self, number: int):
        self.step = 2 * math.pi * frequency_of(number) / RATE
        self.at = 0

    def chunk(self, samples: int, play_ms: float) -> numpy.ndarray:
        angle = self.step * (self.at + numpy.arange(samples))
        self.at += samples
        return (numpy.sin(angle) * (16000 if is_on_at(play_ms) else 0)).astype(numpy.int16)


class Ear:
    """Energy at one sender's frequency, in dB of full scale, over 100 ms."""

    SPAN = RATE // 10

    def __init__(self, number: int):
        self.frequency = frequency_of(number)
        self.pending = numpy.zeros(0, dtype=numpy.float64)

    def hear(self, samples: numpy.ndarray) -> list[float]:
        self.pending = numpy.concatenate([self.pending, samples.astype(numpy.float64) / 32768])
        levels = []
        while len(self.pending) >= self.SPAN:
            span, self.pending = self.pending[: self.SPAN], self.pending[self.SPAN :]
            angle = 2 * math.pi * self.frequency / RATE * numpy.arange(self.SPAN)
            amplitude = abs(numpy.dot(span, numpy.exp(-1j * angle))) * 2 / self.SPAN
            levels.append(max(-120.0, 20 * math.log10(max(amplitude, 1e-9))))
        return levels
