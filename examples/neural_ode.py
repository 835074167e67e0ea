"""A neural ODE that tells digits apart, and becomes cheap to solve by paying for the errors of its steps."""

from dataclasses import replace

import torch
from matplotlib.figure import Figure

from sciml.solvers.neural_de import ErrorEstimate, ExponentialAnnealing, NeuralODE
from sciml.solvers.neural_de.tasks.digits import digits
from sciml.solvers.time import Controller, ExplicitRungeKutta

EPOCHS = 12
data = digits()  # 64 pixels each; they come with scikit-learn
tsit5 = replace(ExplicitRungeKutta.tsit5(), controller=Controller(rows="mean"))


class Rate(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(65, 100).double(), torch.nn.Linear(101, 64).double()

    def forward(self, u, t):
        t = torch.full_like(u[..., :1], t)
        return self.second(torch.cat((self.first(torch.cat((u, t), -1)).tanh(), t), -1)).tanh()


def learn(regularizer):
    """Evaluations that a prediction takes, and how many are right in the test, after each epoch."""
    torch.manual_seed(0)
    ode = NeuralODE(Rate(), method=tsit5, rtol=1.4e-8, atol=1.4e-8, regularizer=regularizer)
    classify = torch.nn.Linear(64, 10).double()
    optimizer = torch.optim.SGD([*ode.parameters(), *classify.parameters()], lr=0.1, momentum=0.9)
    weights = ExponentialAnnealing(3.0, 0.1, EPOCHS)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(data.image)).split(96):
            end, solution = ode.train()(data.image[batch])
            loss = torch.nn.functional.cross_entropy(classify(end), data.label[batch])
            optimizer.zero_grad()
            (loss + weights.weight(epoch) * solution.statistics["penalty"].mean()).backward()
            optimizer.step()
        with torch.no_grad():
            end, solution = ode.eval()(data.test_image)
        right = (classify(end).argmax(1) == data.test_label).double().mean()
        yield int(solution.statistics["evaluations"].max()), 100 * float(right)


figure = Figure(figsize=(8.4, 3.0), layout="constrained")
panels = figure.subplots(1, 2)
for name, regularizer in {"vanilla": None, "regularized": ErrorEstimate("mean", rows="together")}.items():
    course = list(learn(regularizer))
    print("{}: {} evaluations for a prediction, {:.1f}% right".format(name, *course[-1]))
    for axes, values in zip(panels, zip(*course, strict=True), strict=True):
        axes.plot(range(1, EPOCHS + 1), values, "o-", label=name)
panels[0].set(xlabel="epoch", title="evaluations for a prediction", ylim=(0, None))
panels[1].set(xlabel="epoch", title="right in the test, %")
panels[1].legend()
figure.savefig("neural_ode.png", dpi=100)
