/* SPDX-License-Identifier: BSD-3-Clause */
/* The files of a program that is doubled: what a child does to them is undone. They are those in $TMPDIR and in the
 * folders that mkdtemp made, which a program with the linker's --wrap=mkdtemp tells; files that are open stay what they
 * are, and where they are. */
#ifndef MELU_TESTS_FAULT_FILES_H
#define MELU_TESTS_FAULT_FILES_H

void fault_files_keep(void);
void fault_files_restore(void);

/* The child has no use for what is kept. */
void fault_files_forget(void);

#endif
