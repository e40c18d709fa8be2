"""Lines of a worker are printed in the order in which it wrote them."""

from yolov7_ray.train.progress import Line, in_order


def test_lines_that_overtook_each_other_are_put_back_in_order():
    came = [Line("a", 1, "waiting"), Line("", 0, "a node left"), Line("a", 3, "training on 2 workers"),
            Line("b", 2, "second of b"), Line("a", 2, "resumed"), Line("", 0, "another"), Line("b", 1, "first of b")]
    assert in_order(came) == ["waiting", "a node left", "resumed", "first of b", "training on 2 workers", "another",
                              "second of b"]
    assert in_order([]) == []
