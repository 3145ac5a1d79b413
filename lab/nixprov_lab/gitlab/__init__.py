"""The lab's GitLab: the part of GitLab's REST API that nixprov, python-gitlab and gitlab-runner use, kept strict.

It must not use provisioner/ci/gitlab, so that an error in one of them shows in the other.
Rules and texts follow GitLab's documentation (api/runners, api/users, api/rest) and the replies of GitLab 18 and 19.
"""
