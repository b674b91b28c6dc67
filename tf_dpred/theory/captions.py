"""The captions of the figures: what is seen, and all parameters."""

CAPTIONS = {
    "3": r"""
        One eigenmode, Eqs. 13-14; $\tau$ = 1, $\alpha_p$ = 1, $\sigma$ = .03. Shaded:
        starts that end at s = 0. Without decay every point of the thick lines is at
        rest (dotted: unstable) and s - p² never changes; with a little, all starts
        outside a small basin end at p+; above the critical decay, none.
    """,
    "4": r"""
        The rate of p on the parabola s = p²/$\alpha_p$, Eq. 16; $\tau$ = 1, $\sigma$
        = .03. Shaded: the basin of collapse. Decay opens it, up to p-, and above
        $\tau^2/(4(1+\sigma^2))$ nothing else is left. Arrows: where p goes.
    """,
    "5": r"""
        One eigenmode, Eqs. 13-15, from p = .3, s = .2, $\tau$ = 0 (1 without EMA);
        $\alpha_p$ = 1.5, $\sigma$ = .03, learning rate .01, so that an EMA momentum
        of .996 is $\beta$ = .4. Above $\eta$ = .25 the mode dies (and $\tau$ tends to
        $\beta/(\beta-\eta)$ = 4: an average outlives what vanishes). A slow target
        delays growth.
    """,
    "7": r"""
        Is the target a multiple of the online network? Cosine of the two as vectors,
        and their ratio; Lemma 1, X = I, X' = $\sigma^2$ I, $\sigma$ = .03, W 8 x 12,
        $\alpha_p$ = 1, $\beta$ = .4; mean and standard deviation of 10 random starts
        with $W_a$(0) = 0.
    """,
    "8": r"""
        A predictor that nobody keeps symmetric: Lemma 1, X = I, X' = $\sigma^2$ I,
        $\sigma$ = .03, $W_p$ 8 x 8, $\alpha_p$ = 1, $\beta$ = .4; mean and standard
        deviation of 10 random starts.
    """,
    "9": r"""
        Misalignment of F and $W_p$, Eqs. 11-12, at constant $\tau$ and $\eta$;
        $\alpha_p$ = 1, $\sigma$ = .03, 8 x 8; geometric mean of 10 random symmetric
        starts with a small F. Small $\tau$ and large $\eta$ align first (#8, #7); in
        the end a large s does.
    """,
    "10": r"""
        One eigenmode, one lever a row; where not said, $\alpha_p$ = 1, $\eta$ = .05,
        $\tau$ = 1, $\sigma$ = .03. Shaded: starts that collapse. A faster predictor
        shrinks the basin and lowers where s ends; decay widens the basin and lowers
        p+; so does a target behind the online network ($\tau$ < 1), and at $\tau$ =
        .4, where the critical decay is .04, nothing is left.
    """,
    "cosine": r"""
        The cosine loss (arXiv 2309.16109; equations derived, theory/cosine.py): one
        mode on the parabola, $\sigma$ = .03, $\eta$ = .5, twice what the mse loss
        survives; $N_p$ = $N_a$ = r. Left: its rate, negative everywhere for large
        norms. Right: as decay makes the norms fade, from left to right, two equilibria
        emerge; dotted the unstable one, shaded the starts that collapse.
    """,
}
