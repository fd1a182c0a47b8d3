import pytest
@pytest.mark.django_db
def test_db():
    from scale.error.models import Error
    assert Error.objects.count()
