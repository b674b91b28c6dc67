"""Why it does not collapse: the paper's linear theory as functions.

| module       | what                                                            |
|--------------|-----------------------------------------------------------------|
| levers       | what a user sets, in the theory's units                         |
| modes        | one eigenmode: fixed points, basin, critical decay, alignment   |
| flow         | the matrices themselves, and the solver of all flows            |
| basin        | where the basin of collapse ends, found by simulation           |
| theorems     | Theorems 1 to 3 and the closed forms, predicted and simulated   |
| observations | Observations #1 to #10, predicted and simulated                 |
| figures      | the paper's simulated figures                                   |

Nothing here imports TensorFlow. Theorem, lemma and observation numbers are those of
arXiv 2102.06810; what it does not state and follows from its equations is marked
(derived).
"""
