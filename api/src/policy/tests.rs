// Tables and properties against a slow reference evaluator follow.
