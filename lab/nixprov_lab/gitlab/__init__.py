"""The lab's GitLab: the part of GitLab's REST API that nixprov, python-gitlab and gitlab-runner use, kept strict.

Owns nothing of nixprov's logic: it must not know provisioner/ci/gitlab, so that both can be wrong independently.
Rules and texts follow GitLab's documentation (api/runners, api/users, api/rest) and the replies of GitLab 18 and 19.
"""
