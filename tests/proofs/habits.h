/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of proof 16. */
#ifndef MELU_TESTS_HABITS_H
#define MELU_TESTS_HABITS_H

#include "whole_life.h"

/* What a proof runs in a process of its own: `work` ends it with _exit(0), or has proof_broken end it. */
typedef void (*habit_work)(const void *arg);

/* Runs it; `seconds` is how long it may take. Returns 0, and else how it ended: a signal's number, -1 if it was broken,
 * -2 if it did not end. */
int habit_run(habit_work work, const void *arg, unsigned seconds);

/* n bytes, at first zeros, that such processes have together with this one. */
void *habit_share(size_t n);

/* The same as habit_run for what must end well; `name` is of the habit. */
void habit_needs(const char *name, habit_work work, const void *arg, unsigned seconds);

/* Makes the locales that the habits take up, below the folder, and has this process know them. */
void habit_locales(const char *folder);

/* habits_state.c: what belongs to the host. Remembers it; breaks the proof where it is another after a call. */
void habit_remember(void);
void habit_unchanged(void *arg, const char *call);
/* Changes it in every way that habit_unchanged is for. Returns how many there are. */
int habit_plant_changes(void);

/* habits_callbacks.c, habits_processes.c, habits_exceptions.cpp: whole groups of habits. Each returns how many things
 * it tried. */
size_t habit_cancel(const struct scene *s);
size_t habit_reenter(const struct scene *s);
size_t habit_fork(const struct scene *s, const struct outcome *expected, size_t n_forks);
size_t habit_small_stacks(const struct scene *s, const struct outcome *expected, size_t *most);
size_t habit_two_locales(const struct scene *s, size_t n_rounds);
size_t habit_exceptions(const struct scene *s);

/* Whether two outcomes are the same, `tolerance` 0: bit by bit. If not, breaks the proof. */
void habit_same(const char *name, const struct outcome *a, const struct outcome *b, double served, double trained);

#endif
