"""The teacher's observation: the student's proprioception plus what only a simulator knows."""

from perception.observation import Layout, Term, student_layout


def teacher_layout(joints: int, keypoints: int, actions: int, bodies: int) -> Layout:
    """Privileged layout: contacts, forces, vectors to the live full cloud, object motion, mass and friction."""
    shared = tuple(term for term in student_layout(joints, keypoints, actions).terms if term.name != "visible_vectors")
    return Layout(
        (
            *shared,
            Term("contact", bodies, "1"),
            Term("contact_force", bodies, "N", 0.1),
            Term("object_vectors", 3 * keypoints, "m", 10.0),
            Term("object_linvel", 3, "m/s"),
            Term("object_angvel", 3, "rad/s", 0.2),
            Term("object_displacement", 3, "m", 10.0),
            Term("object_in_palm", 3, "m", 10.0),
            Term("object_mass", 1, "kg", 5.0),
            Term("object_friction", 1, "1"),
        )
    )
