/* SPDX-License-Identifier: BSD-3-Clause */
/* A folder as the MeLU reference code has it, tiny and of our own. */
#ifndef MELU_TESTS_TINY_FOLDER_H
#define MELU_TESTS_TINY_FOLDER_H

/* A folder of three movies and three users, with every oddity that the real one has. */
static const struct {
  const char *name, *text;
} tiny_files[] = {
    {"m_rate.txt", "PG\r\nG\r\n"},
    {"m_genre.txt", "Drama\r\nnan\r\nWar\r\n"},
    {"m_director.txt", "nan\r\nAnn Lee\r\nBob Roe\r\nCy (Jr\r\n"},
    {"m_actor.txt", "Eve\r\nnan\r\nZo\xc3\xab\r\n\r\n"},
    {"m_gender.txt", "M\r\nF"},
    {"m_age.txt", "1\n56\n"},
    {"m_occupation.txt", "0\n16\n"},
    {"m_zipcode.txt", "02139\n55113\n"},
    {"users.dat", "7::F::1::16::02139\n3::M::56::0::55113-1234\n9::F::1::16::99999"},
    {"movies_extrainfos.dat",
     "10::One::2000::G::x::Drama, War::Ann Lee(co-director), Bob Roe (a, (b))::w::Zo\xc3\xab,  Eve ::p::q\r\n"
     "20::Two::2001::N/A::x::N/A::(nobody)::w::::p::q\r\n"
     "30::Three::2002::X::x::Opera::Cy (Jr::w::N/A::p::q\r\n"},
    {"s.json", "{\"9\": [\"30\", \"10\", \"30\"],\n\"7\": [], \"3\": [\"20\"]}\n"},
    {"s_y.json", "{\"3\": [2.5], \"9\": [4, 3, 5],\n\"7\": []}\n"},
};
#define N_TINY_FILES (sizeof tiny_files / sizeof *tiny_files)

#endif
